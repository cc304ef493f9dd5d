//! The promises of the contracts, each a function of its own; enlisting makes each a test whose name is the promise.

pub mod archive;
pub mod backend;
pub mod pouring;
pub mod sink;
pub mod source;
pub mod target;

/// One test for each promise; what the public macros expand to.
#[doc(hidden)]
#[macro_export]
macro_rules! promises {
    ($fixture:expr, $suite:ident, [$($promise:ident),* $(,)?]) => {$(
        #[test]
        fn $promise() {
            $crate::run(stringify!($promise), async {
                $crate::conformance::$suite::$promise(&$fixture).await;
            });
        }
    )*};
}
