//! Keys, indexes and foreign keys, made one by one while the last indexes that were begun earlier are still built.
//!
//! pg_restore says the statements, and sessions of ours run them: which is next is decided when a session is free, and none waits for
//! a table that another one works on. It is an optimization only: what the server refuses here is made with all the rest, by
//! pg_restore. (Where a connection breaks, the server may have made it, and pg_restore then says that it is there already.)

use super::{
    indexes::NotBegun,
    shadow::{Shadow, WORK},
};
use std::{
    collections::VecDeque,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

/// The other table has no such key, or not yet; or somebody works on it.
const PASSING: [&str; 2] = ["42830", "55P03"];
/// None waits for a table on which another one works: there may be work on others. Longer than who may waits for an autovacuum.
const AT_ONCE: &str = "50ms";
/// When nothing else is left. Longer than `deadlock_timeout`, after which the server ends an autovacuum that stands in the way.
const PATIENTLY: &str = "1500ms";
/// Before the next one is tried.
const PAUSE: Duration = Duration::from_millis(20);
/// What is still refused after so many is made with the rest.
const TRIES: usize = 3;

/// One that is not made yet.
struct Wanted {
    /// What pg_restore calls it.
    number: u32,
    statements: String,
    /// It was tried before.
    is_known: bool,
    /// How often it was tried again in vain, while nobody worked on anything new.
    tries: usize,
}

/// Those of a database.
pub(super) struct Statements<'a> {
    shadow: &'a Shadow,
    wanted: Mutex<VecDeque<Wanted>>,
    /// So many sessions run one.
    working: AtomicUsize,
    /// So many of these were not tried before: they may be in the way of others.
    new: AtomicUsize,
    made: Mutex<Vec<u32>>,
}

impl<'a> Statements<'a> {
    /// Keys first, which foreign keys need; those next, for a table of which an index is built is not free; then indexes. `None`: they
    /// are not understood.
    pub(super) async fn read(shadow: &'a Shadow, archive: &Path, not_begun: &NotBegun) -> Option<Self> {
        let NotBegun { keys, foreign_keys, indexes } = not_begun;
        let numbers = [&**keys, foreign_keys, indexes].concat();
        let of = |wanted| {
            let (working, new) = (AtomicUsize::new(0), AtomicUsize::new(0));
            Statements { shadow, wanted: Mutex::new(wanted), working, new, made: Mutex::default() }
        };
        if numbers.is_empty() {
            return Some(of(VecDeque::new()));
        }
        let script = shadow.tools.script(archive, &numbers, shadow.server.config.no_owner);
        let script = tokio::select! {
            script = script => script.ok()?,
            () = shadow.cx.cancel.cancelled() => return None,
        };
        let statements = statements(&script).filter(|statements| statements.len() == numbers.len())?;
        let wanted = numbers.into_iter().zip(statements);
        let wanted =
            wanted.map(|(number, statements)| Wanted { number, statements, is_known: false, tries: 0 });
        Some(of(wanted.collect()))
    }

    /// Makes them, by no more sessions than the run has tasks, those among them that build what was begun earlier: so the longest index,
    /// for which all wait in the end, is not slowed down. Which were made.
    pub(super) async fn make(self, tasks: usize) -> Vec<u32> {
        let all = &self;
        let working = (0..tasks.max(1)).map(|place| async move {
            tokio::select! {
                () = all.make_some(|| place == 0 || place + all.shadow.indexes.running().min(tasks / 2) < tasks) => {}
                // Dropped sessions end what they have begun.
                () = all.shadow.cx.cancel.cancelled() => {}
            }
        });
        futures::future::join_all(working).await;
        self.made.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    async fn make_some(&self, may_work: impl Fn() -> bool) {
        let mut session = None;
        while self.is_left() {
            let Some((next, wait)) = may_work().then(|| self.next()).flatten() else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let _working = Working { all: self, is_new: !next.is_known };
            let session = match &mut session {
                Some(session) => session,
                none => match self.shadow.session().await {
                    Ok(new) => none.insert(new),
                    // It is made with the rest.
                    Err(_) => break,
                },
            };
            let done = match session.query(&format!("SET lock_timeout = '{wait}'")).await {
                Ok(_) => session.query_within(WORK, &next.statements).await,
                Err(e) => Err(e),
            };
            match done {
                Ok(_) => self.made.lock().unwrap_or_else(PoisonError::into_inner).push(next.number),
                Err(e) if PASSING.contains(&e.code().unwrap_or_default()) => {
                    self.put_back(next);
                    tokio::time::sleep(PAUSE).await;
                }
                // It is tried again with the rest, and told then.
                Err(_) if session.is_clean() => {}
                Err(_) => break,
            }
        }
        if let Some(session) = session {
            session.close().await;
        }
    }

    /// Whether there is something to be made, or may be again.
    fn is_left(&self) -> bool {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        !wanted.is_empty() || self.working.load(Relaxed) > 0
    }

    /// The next one, and how long its tables are waited for. Who takes it counts as working.
    fn next(&self) -> Option<(Wanted, &'static str)> {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let next = wanted.pop_front()?;
        self.working.fetch_add(1, Relaxed);
        self.new.fetch_add(usize::from(!next.is_known), Relaxed);
        let patiently = next.is_known && wanted.iter().all(|wanted| wanted.is_known);
        Some((next, if patiently { PATIENTLY } else { AT_ONCE }))
    }

    /// What could not be made now, behind all others; not for ever, where nobody is left who could be in its way.
    fn put_back(&self, mut one: Wanted) {
        let in_vain = one.is_known && self.shadow.indexes.running() == 0 && self.new.load(Relaxed) == 0;
        one.is_known = true;
        one.tries += usize::from(in_vain);
        if one.tries < TRIES {
            self.wanted.lock().unwrap_or_else(PoisonError::into_inner).push_back(one);
        }
    }
}

/// A session that runs something, until it is dropped.
struct Working<'a, 'b> {
    all: &'a Statements<'b>,
    is_new: bool,
}

impl Drop for Working<'_, '_> {
    fn drop(&mut self) {
        self.all.new.fetch_sub(usize::from(self.is_new), Relaxed);
        self.all.working.fetch_sub(1, Relaxed);
    }
}

/// Those of each item of a script of pg_restore that makes keys and indexes and nothing else; `None`: it is not understood.
fn statements(script: &str) -> Option<Vec<String>> {
    let understood = script.is_ascii() || script.contains("\nSET client_encoding = 'UTF8';\n");
    // It is said once for all that follow.
    let elsewhere = |line: &str| line.starts_with("SET default_tablespace = ") && !line.ends_with(" '';");
    let understood = understood && !script.lines().any(elsewhere);
    let end = script.rfind("\n--\n-- PostgreSQL database dump complete\n").filter(|_| understood)?;
    let items = script[..end].split("\n--\n-- Name: ").skip(1);
    let statements = |item: &str| {
        let (comment, rest) = item.split_once('\n')?;
        let statements = rest.strip_prefix("--\n")?.trim();
        let is = |kind: &str, begin: &str| {
            comment.contains(&format!("; Type: {kind}; ")) && statements.starts_with(begin)
        };
        let is_key = is("CONSTRAINT", "ALTER TABLE ")
            || is("FK CONSTRAINT", "ALTER TABLE ") && statements.contains(" FOREIGN KEY (");
        let is_index = is("INDEX", "CREATE INDEX ") || is("INDEX", "CREATE UNIQUE INDEX ");
        ((is_key || is_index) && statements.ends_with(';')).then(|| statements.to_owned())
    };
    items.map(statements).collect()
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
    fn all_that_belongs_to_a_key_or_index_is_made_with_it() {
        let of = |kind: &str, text: &str| item("k", text).replace("FK CONSTRAINT", kind);
        let key = "ALTER TABLE ONLY public.a\n    ADD CONSTRAINT k PRIMARY KEY (id);\n\n\nALTER TABLE public.a CLUSTER ON k;";
        let index = "CREATE UNIQUE INDEX i ON public.a USING btree (b);";
        let elsewhere = |place: &str| {
            let set = format!("SET default_tablespace = {place};\n\n");
            statements(&format!("{BEGIN}{set}{}{}{END}", of("CONSTRAINT", key), of("INDEX", index)))
        };
        assert_eq!(elsewhere("''"), Some(vec![key.to_owned(), index.to_owned()]));
        assert_eq!(elsewhere("fast"), None, "the statement itself does not say where");
        assert_eq!(statements(&format!("{BEGIN}{}{END}", of("INDEX", "CREATE VIEW v AS SELECT 1;"))), None);
    }

    #[test]
    fn what_is_no_key_or_index_is_not_understood() {
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
