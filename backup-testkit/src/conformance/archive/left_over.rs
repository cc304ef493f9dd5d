//! A run that was killed after its backup got its name, and before the provisional one was gone.

use super::{ArchiveFixture, as_listed, list};
use crate::{
    Must,
    conformance::pouring::{assert_reads_back, conclusion, pour},
    make::{chunked, file, header},
    memory::MemorySource,
    not_applicable,
};
use backup_core::Context;

/// The backup is there, once: listed, opened, removed by its id. Its other name goes with `heal`.
pub async fn a_backup_whose_provisional_name_is_left_is_there_once(make: &impl ArchiveFixture) {
    let (fresh, cx) = (make.fresh().await, Context::default());
    let Some(raw) = fresh.raw() else {
        return not_applicable(
            "a_backup_whose_provisional_name_is_left_is_there_once",
            "the fixture does not show its bytes",
        );
    };
    let source = MemorySource::new("c").with_file("a", "aaa").with(file("b"), || chunked(700_000, 50_000, 9));
    let before = fresh.names();
    let writer = fresh.archive.begin(header("s", &["c"]), &cx).await.must("begin");
    let poured = pour(&source, "c", writer.component("c").must("its sink"), &cx).await.must("pour");
    let during = fresh.names();
    let summary = writer.commit(conclusion(vec![poured], &cx), &cx).await.must("commit");
    let after = fresh.names();
    let gone: Vec<_> = during.iter().filter(|n| !before.contains(n) && !after.contains(n)).collect();
    if gone.is_empty() || !make.names_what_is_written() {
        return not_applicable(
            "a_backup_whose_provisional_name_is_left_is_there_once",
            "it has no provisional names",
        );
    }
    let whole = raw.pieces().into_iter().max_by_key(|(_, bytes)| *bytes).map(|(name, _)| raw.read(&name));
    let leave = || gone.iter().for_each(|name| raw.write(name, whole.as_deref()));
    leave();
    let archive = fresh.reopened();
    assert_eq!(list(make, &*archive).await, [as_listed(make, &summary)], "it is not listed once");
    assert_reads_back(&*archive, &summary, &source, &cx).await;
    let healed = archive.heal(&cx).await.must("heal");
    assert_eq!(healed.len(), gone.len(), "heal took away something else: {healed:?}");
    assert_eq!(fresh.names(), after, "heal did not leave exactly the backup");
    leave();
    archive.remove(std::slice::from_ref(&summary.id), &cx).await.must("remove");
    assert_eq!(fresh.names(), before, "something is left of what was removed");
}
