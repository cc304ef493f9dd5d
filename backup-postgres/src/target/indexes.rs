//! Keys and indexes of large tables, built while the rows of others are still loaded.
//!
//! An index can take longer than all else and is the work of one process of the server: the sooner it begins, the sooner all is
//! over. It is an optimization only. What was not built here, for whatever reason, is built with all the rest.

use super::maintenance::Maintenance;
use crate::{layout::RowsOf, tools::Tools};
use backup_core::{Context, Error, ErrorKind, Result};
use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};
use tokio::{
    sync::{OnceCell, Semaphore},
    task::JoinSet,
};

/// Those of smaller tables are built together: a call of the vendor's tool costs more than they do.
pub(super) const LARGE: u64 = 8 << 20;
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
    kind: ItemKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ItemKind {
    /// An index, or a key that is one.
    Index,
    ForeignKey,
    Other,
}

/// What has been begun.
pub(super) struct Indexes {
    tools: Tools,
    database: String,
    no_owner: bool,
    settings: String,
    cx: Context,
    items: Arc<OnceCell<Vec<Item>>>,
    at_once: Arc<Semaphore>,
    building: Mutex<JoinSet<()>>,
    begun: Arc<Mutex<Begun>>,
    built: Arc<Mutex<HashSet<u32>>>,
    /// So many tables have an index that is being built.
    running: Arc<AtomicUsize>,
    /// Of tables that are loaded: in this order they are best built.
    order: Mutex<Vec<(u32, u32)>>,
}

/// What is still to be made.
pub(super) struct NotBegun {
    /// In the order in which they are best built.
    pub(super) keys: Vec<u32>,
    /// In the order of the archive.
    pub(super) foreign_keys: Vec<u32>,
    /// As the keys.
    pub(super) indexes: Vec<u32>,
}

#[derive(Default)]
struct Begun {
    items: HashSet<u32>,
    /// All others are left to whoever builds the rest.
    no_more: bool,
}

impl Indexes {
    pub(super) fn new(
        tools: Tools,
        database: &str,
        (no_owner, maintenance): (bool, &Maintenance),
        cx: &Context,
    ) -> Self {
        Indexes {
            tools,
            database: database.to_owned(),
            no_owner,
            settings: maintenance.options(),
            cx: cx.clone(),
            items: Arc::default(),
            at_once: Arc::new(Semaphore::new((cx.tasks / 2).max(1))),
            building: Mutex::default(),
            begun: Arc::default(),
            built: Arc::default(),
            running: Arc::default(),
            order: Mutex::default(),
        }
    }

    /// All rows of this table, a large one, are there.
    pub(super) fn begin(&self, of: &RowsOf, schema: Arc<tempfile::NamedTempFile>) {
        if of.keys.is_empty() && of.indexes.is_empty() {
            return;
        }
        let keys = of.keys.iter().map(|key| (CONSTRAINT, *key));
        let wanted: Vec<_> = keys.chain(of.indexes.iter().map(|index| (CLASS, *index))).collect();
        self.order.lock().unwrap_or_else(PoisonError::into_inner).extend(&wanted);
        let (tools, database, cx) = (self.tools.clone(), self.database.clone(), self.cx.clone());
        let (items, at_once, begun) = (self.items.clone(), self.at_once.clone(), self.begun.clone());
        let (built, running, no_owner) = (self.built.clone(), self.running.clone(), self.no_owner);
        let settings = self.settings.clone();
        let building = async move {
            // It is never closed.
            let Ok(_permit) = at_once.acquire().await else { return };
            let items = items.get_or_try_init(|| list(&tools, schema.path(), &cx));
            let Ok(items) = items.await else { return };
            let its = in_order(items.iter(), &wanted);
            let its: Vec<u32> =
                its.into_iter().filter(|(_, known)| *known).map(|(number, _)| number).collect();
            if !claim(&begun, &its) {
                return;
            }
            let _running = Running::new(running);
            // All of them or none: what fails is tried again with the rest, and told then.
            let mut arguments = vec!["--section=post-data", "--single-transaction"];
            if no_owner {
                arguments.extend(["--no-owner", "--no-privileges"]);
            }
            let restoring = tools.restore(&database, schema.path(), &arguments, Some(&its), (1, &settings));
            let done = tokio::select! {
                done = restoring => done,
                () = cx.cancel.cancelled() => Err(Error::cancelled()),
            };
            if done.is_ok() {
                built.lock().unwrap_or_else(PoisonError::into_inner).extend(its);
            }
        };
        self.building.lock().unwrap_or_else(PoisonError::into_inner).spawn(building);
    }

    /// Begins no more. What nobody has begun; `None` if nothing was begun at all.
    pub(super) fn not_begun(&self) -> Option<NotBegun> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.no_more = true;
        let items = self.items.get().filter(|_| !begun.items.is_empty())?;
        let order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let left = items.iter().filter(|item| !begun.items.contains(&item.number));
        let (keys, indexes): (Vec<_>, Vec<_>) = left.partition(|item| item.of.0 == CONSTRAINT);
        let numbers = |items: Vec<&Item>| {
            in_order(items.into_iter(), &order).into_iter().map(|(number, _)| number).collect()
        };
        let foreign_keys = items.iter().filter(|item| item.kind == ItemKind::ForeignKey);
        let foreign_keys = foreign_keys.map(|item| item.number).collect();
        Some(NotBegun { keys: numbers(keys), foreign_keys, indexes: numbers(indexes) })
    }

    /// For how many tables indexes are being built.
    pub(super) fn running(&self) -> usize {
        self.running.load(Relaxed)
    }

    /// Waits for all that was begun; all that is in the archive but what is built, `also` included.
    pub(super) async fn rest(&self, also: &[u32]) -> Vec<u32> {
        let mut building = self.take();
        while building.join_next().await.is_some() {}
        let mut built: HashSet<u32> = also.iter().copied().collect();
        built.extend(self.built.lock().unwrap_or_else(PoisonError::into_inner).iter());
        let items = self.items.get().into_iter().flatten();
        items.map(|item| item.number).filter(|number| !built.contains(number)).collect()
    }

    /// Ends what is being built.
    pub(super) async fn end(&self) {
        self.take().shutdown().await;
    }

    fn take(&self) -> JoinSet<()> {
        std::mem::take(&mut *self.building.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The keys and indexes among these items, each with whether it is in `order`. Those that are not come first: they are of small tables.
/// Then keys, which foreign keys need; then the rest as in `order`: of a table first those that one process of the server must build alone,
/// then those for which it can take several, which fill the time until the longest of all is done.
fn in_order<'a>(items: impl Iterator<Item = &'a Item>, order: &[(u32, u32)]) -> Vec<(u32, bool)> {
    let places: HashMap<_, _> = order.iter().enumerate().map(|(place, of)| (*of, place)).collect();
    let mut indexes: Vec<_> = items
        .filter(|item| item.kind == ItemKind::Index)
        .map(|item| (places.get(&item.of).map(|place| (item.of.0 != CONSTRAINT, *place)), item.number))
        .collect();
    indexes.sort_unstable();
    indexes.into_iter().map(|(place, number)| (number, place.is_some())).collect()
}

/// One table's, until it is dropped.
struct Running(Arc<AtomicUsize>);

impl Running {
    fn new(running: Arc<AtomicUsize>) -> Self {
        running.fetch_add(1, Relaxed);
        Running(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
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
    let kind = match what {
        _ if what.starts_with("INDEX ATTACH ") => ItemKind::Other,
        _ if what.starts_with("INDEX ") || what.starts_with("CONSTRAINT ") => ItemKind::Index,
        _ if what.starts_with("FK CONSTRAINT ") => ItemKind::ForeignKey,
        _ => ItemKind::Other,
    };
    Some(Item { number: number.parse().ok()?, of, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_first_and_what_takes_longest_next() {
        let item = |number, of, kind| Item { number, of, kind };
        let items = [
            item(1, (CLASS, 11), ItemKind::Index),
            item(2, (CLASS, 12), ItemKind::Index),
            item(3, (CONSTRAINT, 13), ItemKind::Index),
            item(4, (CONSTRAINT, 14), ItemKind::ForeignKey),
            item(5, (CLASS, 15), ItemKind::Index),
        ];
        let order = [(CLASS, 12), (CLASS, 11), (CONSTRAINT, 13), (CONSTRAINT, 14)];
        assert_eq!(in_order(items.iter(), &order), [(5, false), (3, true), (2, true), (1, true)]);
    }

    #[test]
    fn only_keys_and_indexes_are_taken_for_such() {
        let found = |line| item(line).map(|item| (item.number, item.of, item.kind));
        let key = "3298; 2606 22413 CONSTRAINT public attachments attachments_pkey postgres";
        assert_eq!(found(key), Some((3298, (2606, 22413), ItemKind::Index)));
        let index = "3284; 1259 22414 INDEX public a b postgres";
        assert_eq!(found(index), Some((3284, (1259, 22414), ItemKind::Index)));
        let foreign = "3301; 2606 22431 FK CONSTRAINT public a b postgres";
        assert_eq!(found(foreign), Some((3301, (2606, 22431), ItemKind::ForeignKey)));
        for other in
            ["3301; 0 0 INDEX ATTACH public a postgres", "3302; 2620 22432 TRIGGER public a INDEX postgres"]
        {
            assert_eq!(found(other).unwrap().2, ItemKind::Other, "{other}");
        }
        assert_eq!(found(";     dbname: race"), None);
        assert_eq!(found("; Selected TOC Entries:"), None);
    }
}
