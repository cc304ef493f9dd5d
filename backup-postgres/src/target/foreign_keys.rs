//! Foreign keys, checked while the last indexes of other tables are still built.
//!
//! It is an optimization only: what the server refuses here is made with all the rest, by pg_restore. (Where a connection breaks, the
//! server may have made it, and pg_restore then says that it is there already.)

use super::shadow::{Shadow, WORK};
use std::{
    collections::VecDeque,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

const LOCK_NOT_AVAILABLE: &str = "55P03";
/// The other table has no such key, or not yet.
const NO_SUCH_KEY: &str = "42830";
/// At first none waits for a table of which an index is built: another one may need no such table.
const AT_ONCE: &str = "SET lock_timeout = '50ms'";
/// Longer than `deadlock_timeout`, after which the server ends an autovacuum that stands in the way.
const PATIENTLY: &str = "SET lock_timeout = '1500ms'";

/// Before the next one is tried.
const PAUSE: Duration = Duration::from_millis(20);

/// One that is not made yet.
struct Wanted {
    /// What pg_restore calls it.
    number: u32,
    statement: String,
}

/// Those of a database.
pub(super) struct ForeignKeys<'a> {
    shadow: &'a Shadow,
    wanted: Mutex<VecDeque<Wanted>>,
    made: Mutex<Vec<u32>>,
}

impl<'a> ForeignKeys<'a> {
    /// With the statements that make them; none, if no indexes are being built any more.
    pub(super) async fn read(shadow: &'a Shadow, archive: &Path) -> Self {
        let none = ForeignKeys { shadow, wanted: Mutex::default(), made: Mutex::default() };
        let numbers = shadow.indexes.foreign_keys();
        if numbers.is_empty() || shadow.indexes.running() == 0 {
            return none;
        }
        let script = shadow.tools.script(archive, &numbers, shadow.server.config.no_owner);
        let script = tokio::select! {
            script = script => script.unwrap_or_default(),
            () = shadow.cx.cancel.cancelled() => return none,
        };
        match statements(&script) {
            Some(statements) if statements.len() == numbers.len() => {
                let wanted = numbers.into_iter().zip(statements);
                let wanted = wanted.map(|(number, statement)| Wanted { number, statement });
                ForeignKeys { wanted: Mutex::new(wanted.collect()), ..none }
            }
            _ => none,
        }
    }

    /// Makes those whose tables are free and have their keys, by so many sessions.
    pub(super) async fn make_at_once(&self, sessions: usize) {
        let tries = AtomicUsize::new(self.wanted.lock().unwrap_or_else(PoisonError::into_inner).len());
        let is_left = || tries.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)).is_ok();
        self.make(sessions, AT_ONCE, &[LOCK_NOT_AVAILABLE, NO_SUCH_KEY], is_left).await;
    }

    /// The same, waiting for tables as long as indexes are built.
    pub(super) async fn make_meanwhile(&self, sessions: usize) {
        self.make(sessions, PATIENTLY, &[LOCK_NOT_AVAILABLE], || self.shadow.indexes.running() > 0).await;
    }

    /// Which were made.
    pub(super) fn made(self) -> Vec<u32> {
        self.made.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// What fails with one of these codes is wanted further.
    async fn make(&self, sessions: usize, wait: &str, passing: &[&str], goes_on: impl Fn() -> bool) {
        if self.wanted.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            return;
        }
        let working = (0..sessions).map(|_| async {
            tokio::select! {
                () = self.make_some(wait, passing, &goes_on) => {}
                // Dropped sessions end what they have begun.
                () = self.shadow.cx.cancel.cancelled() => {}
            }
        });
        futures::future::join_all(working).await;
    }

    async fn make_some(&self, wait: &str, passing: &[&str], goes_on: &impl Fn() -> bool) {
        let Ok(mut session) = self.shadow.session().await else { return };
        if session.query(wait).await.is_ok() {
            while goes_on() {
                let next = self.wanted.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some(next) = next else { break };
                match session.query_within(WORK, &next.statement).await {
                    Ok(_) => self.made.lock().unwrap_or_else(PoisonError::into_inner).push(next.number),
                    Err(e) if passing.contains(&e.code().unwrap_or_default()) => {
                        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).push_back(next);
                        tokio::time::sleep(PAUSE).await;
                    }
                    // It is tried again with the rest, and told then.
                    Err(_) if session.is_clean() => {}
                    Err(_) => break,
                }
            }
        }
        session.close().await;
    }
}

/// The statements of a script of pg_restore that makes foreign keys and nothing else; `None`: it is not understood.
fn statements(script: &str) -> Option<Vec<String>> {
    let understood = script.is_ascii() || script.contains("\nSET client_encoding = 'UTF8';\n");
    let end = script.rfind("\n--\n-- PostgreSQL database dump complete\n").filter(|_| understood)?;
    let items = script[..end].split("\n--\n-- Name: ").skip(1);
    let statement = |item: &str| {
        let (comment, rest) = item.split_once('\n')?;
        let statement = rest.strip_prefix("--\n")?.trim();
        let is_key = comment.contains("; Type: FK CONSTRAINT; ")
            && statement.starts_with("ALTER TABLE ")
            && statement.contains(" FOREIGN KEY (")
            && statement.ends_with(';');
        is_key.then(|| statement.to_owned())
    };
    items.map(statement).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: &str =
        "--\n-- PostgreSQL database dump\n--\n\n\\restrict abc\n\nSET client_encoding = 'UTF8';\n\n";
    const END: &str = "--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict abc\n\n";

    fn item(name: &str, statement: &str) -> String {
        format!("--\n-- Name: {name}; Type: FK CONSTRAINT; Schema: public; Owner: o\n--\n\n{statement}\n\n\n")
    }

    #[test]
    fn each_foreign_key_is_a_statement() {
        let a = "ALTER TABLE ONLY public.a\n    ADD CONSTRAINT \"a;\n b\" FOREIGN KEY (x) REFERENCES public.b(id);";
        let b =
            "ALTER TABLE public.é\n    ADD CONSTRAINT k FOREIGN KEY (x) REFERENCES public.b(id) NOT VALID;";
        let script = format!("{BEGIN}{}{}{END}", item("a a; b", a), item("é k", b));
        assert_eq!(statements(&script), Some(vec![a.to_owned(), b.to_owned()]));
        assert_eq!(statements(&script.replace("UTF8", "LATIN1")), None);
        assert_eq!(statements(&format!("{BEGIN}{}", item("a k", a))), None, "it is cut");
    }

    #[test]
    fn what_is_no_foreign_key_is_not_understood() {
        let trigger = item("t", "CREATE TRIGGER t;").replace("FK CONSTRAINT", "TRIGGER");
        let broken =
            item("k", "ALTER TABLE a ADD CONSTRAINT \"\n--\n-- Name: x\" FOREIGN KEY (x) REFERENCES b(id);");
        for other in
            [trigger, broken, item("k", "SET x; ALTER TABLE a ADD FOREIGN KEY (x) REFERENCES b(id);")]
        {
            assert_eq!(statements(&format!("{BEGIN}{other}{END}")), None, "{other}");
        }
        assert_eq!(statements(""), None);
    }
}
