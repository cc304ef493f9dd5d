//! Keys and indexes of large tables, built while the rows of others are still loaded.
//!
//! An index can take longer than all else and is the work of one process of the server: the sooner it begins, the sooner all is
//! over. It is an optimization only. What was not built here, for whatever reason, is built with all the rest.

use super::shadow::MAINTENANCE;
use crate::{layout::RowsOf, tools::Tools};
use backup_core::{Context, Error, ErrorKind, Result};
use std::{
    collections::HashSet,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    sync::{OnceCell, Semaphore},
    task::JoinSet,
};

/// Those of smaller tables are built together: a call of the vendor's tool costs more than they do.
const LARGE: u64 = 8 << 20;
/// The numbers of the catalogs whose rows an archive of pg_dump names: `pg_class`, `pg_constraint`.
const CLASS: u32 = 1259;
const CONSTRAINT: u32 = 2606;

/// An item of the archive of definitions.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    /// What pg_restore calls it.
    number: u32,
    /// Catalog and number in it, in the database that was backed up.
    of: (u32, u32),
    /// An index, or a key that is one.
    is_index: bool,
}

/// What has been begun.
pub(super) struct Indexes {
    tools: Tools,
    database: String,
    no_owner: bool,
    cx: Context,
    items: Arc<OnceCell<Vec<Item>>>,
    at_once: Arc<Semaphore>,
    building: Mutex<JoinSet<Vec<u32>>>,
    begun: Arc<Mutex<Begun>>,
}

#[derive(Default)]
struct Begun {
    items: HashSet<u32>,
    /// All others are left to whoever builds the rest.
    no_more: bool,
}

impl Indexes {
    pub(super) fn new(tools: Tools, database: &str, no_owner: bool, cx: &Context) -> Self {
        Indexes {
            tools,
            database: database.to_owned(),
            no_owner,
            cx: cx.clone(),
            items: Arc::default(),
            at_once: Arc::new(Semaphore::new((cx.tasks / 2).max(1))),
            building: Mutex::default(),
            begun: Arc::default(),
        }
    }

    /// All rows of this table are there: `bytes` of them.
    pub(super) fn begin(&self, of: &RowsOf, bytes: u64, schema: Arc<tempfile::NamedTempFile>) {
        if bytes < LARGE || of.keys.is_empty() && of.indexes.is_empty() {
            return;
        }
        let wanted: HashSet<(u32, u32)> = of.keys.iter().map(|key| (CONSTRAINT, *key)).collect();
        let wanted: HashSet<_> = wanted.into_iter().chain(of.indexes.iter().map(|i| (CLASS, *i))).collect();
        let (tools, database, cx) = (self.tools.clone(), self.database.clone(), self.cx.clone());
        let (items, at_once, begun) = (self.items.clone(), self.at_once.clone(), self.begun.clone());
        let no_owner = self.no_owner;
        let building = async move {
            // It is never closed.
            let Ok(_permit) = at_once.acquire().await else { return Vec::new() };
            let items = items.get_or_try_init(|| list(&tools, schema.path(), &cx));
            let Ok(items) = items.await else { return Vec::new() };
            let its = items.iter().filter(|item| item.is_index && wanted.contains(&item.of));
            let its: Vec<u32> = its.map(|item| item.number).collect();
            if !claim(&begun, &its) {
                return Vec::new();
            }
            // All of them or none: what fails is tried again with the rest, and told then.
            let mut arguments = vec!["--section=post-data", "--single-transaction"];
            if no_owner {
                arguments.extend(["--no-owner", "--no-privileges"]);
            }
            let restoring = tools.restore(&database, schema.path(), &arguments, Some(&its), (1, MAINTENANCE));
            let built = tokio::select! {
                built = restoring => built,
                () = cx.cancel.cancelled() => Err(Error::cancelled()),
            };
            built.map(|()| its).unwrap_or_default()
        };
        self.building.lock().unwrap_or_else(PoisonError::into_inner).spawn(building);
    }

    /// Begins no more. The keys and indexes that nobody has begun; `None` if nothing was begun at all.
    pub(super) fn not_begun(&self) -> Option<Vec<u32>> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.no_more = true;
        let items = self.items.get().filter(|_| !begun.items.is_empty())?;
        let left = items.iter().filter(|item| item.is_index && !begun.items.contains(&item.number));
        Some(left.map(|item| item.number).collect())
    }

    /// Waits for all that was begun; all that is in the archive but what is built, `also` included.
    pub(super) async fn rest(&self, also: &[u32]) -> Vec<u32> {
        let mut built: HashSet<u32> = also.iter().copied().collect();
        let mut building = self.take();
        while let Some(its) = building.join_next().await {
            built.extend(its.unwrap_or_default());
        }
        let items = self.items.get().into_iter().flatten();
        items.map(|item| item.number).filter(|number| !built.contains(number)).collect()
    }

    /// Ends what is being built.
    pub(super) async fn end(&self) {
        self.take().shutdown().await;
    }

    fn take(&self) -> JoinSet<Vec<u32>> {
        std::mem::take(&mut *self.building.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether they may be built now.
fn claim(begun: &Mutex<Begun>, items: &[u32]) -> bool {
    let mut begun = begun.lock().unwrap_or_else(PoisonError::into_inner);
    let may = !begun.no_more && !items.is_empty();
    if may {
        begun.items.extend(items);
    }
    may
}

async fn list(tools: &Tools, archive: &Path, cx: &Context) -> Result<Vec<Item>> {
    let said = tokio::select! {
        said = tools.list(archive, "--section=post-data") => said?,
        () = cx.cancel.cancelled() => return Err(Error::cancelled()),
    };
    // One that is not understood must not be left out of what is built: then all is built together, by the tool alone.
    let items = said.lines().filter(|line| !line.is_empty() && !line.starts_with(';')).map(|line| {
        let unknown = || Error::new(ErrorKind::Target, "read the list of pg_restore", "it is not understood");
        item(line).ok_or_else(unknown)
    });
    items.collect()
}

/// `3298; 2606 22413 CONSTRAINT public attachments attachments_pkey postgres`. Comments begin with `;`.
fn item(line: &str) -> Option<Item> {
    let (number, rest) = line.split_once("; ")?;
    let mut words = rest.splitn(3, ' ');
    let of = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let what = words.next()?;
    let is_index = what.starts_with("INDEX ") && !what.starts_with("INDEX ATTACH ");
    Some(Item { number: number.parse().ok()?, of, is_index: is_index || what.starts_with("CONSTRAINT ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_and_indexes_are_taken_for_such() {
        let found = |line| item(line).map(|item| (item.number, item.of, item.is_index));
        let key = "3298; 2606 22413 CONSTRAINT public attachments attachments_pkey postgres";
        assert_eq!(found(key), Some((3298, (2606, 22413), true)));
        assert_eq!(found("3284; 1259 22414 INDEX public a b postgres"), Some((3284, (1259, 22414), true)));
        for other in [
            "3301; 2606 22431 FK CONSTRAINT public a b postgres",
            "3301; 0 0 INDEX ATTACH public a postgres",
            "3302; 2620 22432 TRIGGER public a INDEX postgres",
        ] {
            assert!(!found(other).unwrap().2, "{other}");
        }
        assert_eq!(found(";     dbname: race"), None);
        assert_eq!(found("; Selected TOC Entries:"), None);
    }
}
