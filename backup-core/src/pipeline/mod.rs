//! The lines of the one data path: what is put, poured, created and verified.

mod create;
mod pour;
mod put_stage;
mod report;
mod verify;

pub use create::{CreateComponent, CreateRequest, create};
pub use pour::{Pouring, pour_all};
pub use put_stage::put_stage;
pub use report::{ComponentReport, Report};
pub use verify::{DigestSink, VerifiedComponent, VerifyReport, verify};
