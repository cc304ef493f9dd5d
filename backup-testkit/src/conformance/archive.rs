//! What every archive promises. Enlist with `archive_conformance!`.

mod budget;
mod commit;
mod copied;
mod damage;
mod ends;
mod kept;
mod left_over;
mod locks;
mod raw;
mod reading;

pub use budget::*;
pub use commit::*;
pub use copied::*;
pub use damage::*;
pub use ends::*;
pub use kept::*;
pub use left_over::*;
pub use locks::*;
pub use raw::{Raw, RawFolder};
pub use reading::*;

use crate::Must;
use async_trait::async_trait;
use backup_core::{Archive, BackupSummary, Context, ErrorKind};
use std::{any::Any, sync::Arc};

/// Makes archives to be tested.
#[async_trait]
pub trait ArchiveFixture: Send + Sync {
    /// An archive without backups. Each call makes another one.
    async fn fresh(&self) -> Fresh;

    /// The least bytes of budget with which `begin` works; 0: it needs none.
    fn least_budget(&self) -> usize {
        0
    }

    /// Whether a backup that is being written has a name of its own, which a kill can leave beside the finished one.
    fn names_what_is_written(&self) -> bool {
        true
    }

    /// One entry can be read without fetching the others.
    fn ranged(&self) -> bool {
        false
    }

    /// It has room for one backup only: a single file.
    fn single(&self) -> bool {
        false
    }

    /// What is being written can be listed, as incomplete.
    fn lists_incomplete(&self) -> bool {
        true
    }

    /// It has a place for what comes later: `mark_verified` is kept.
    fn keeps_verified(&self) -> bool {
        !self.single()
    }

    /// It compares the id of a new backup with those that are there. Ids are random, so an archive need not.
    fn compares_ids(&self) -> bool {
        true
    }

    /// An archive whose place cannot be reached, if that can be made.
    async fn unreachable(&self) -> Option<Arc<dyn Archive>> {
        None
    }
}

/// An archive, and the place behind its back.
pub struct Fresh {
    /// The archive.
    pub archive: Arc<dyn Archive>,
    open: Box<dyn Fn() -> Arc<dyn Archive> + Send + Sync>,
    raw: Option<Box<dyn Raw>>,
    kept: Vec<Box<dyn Any + Send + Sync>>,
}

impl Fresh {
    /// `open` opens the archive of this place; it is called again where a later process would.
    pub fn new(open: impl Fn() -> Arc<dyn Archive> + Send + Sync + 'static) -> Self {
        Fresh { archive: open(), open: Box::new(open), raw: None, kept: Vec::new() }
    }

    /// Where its bytes are, so that they can be damaged.
    #[must_use]
    pub fn with_raw(mut self, raw: impl Raw + 'static) -> Self {
        self.raw = Some(Box::new(raw));
        self
    }

    /// Keeps something as long as the archive: its temporary folder.
    #[must_use]
    pub fn keeping(mut self, what: impl Any + Send + Sync) -> Self {
        self.kept.push(Box::new(what));
        self
    }

    /// The same place, as a later process opens it.
    pub fn reopened(&self) -> Arc<dyn Archive> {
        (self.open)()
    }

    /// The bytes at rest, if the fixture shows them.
    pub fn raw(&self) -> Option<&dyn Raw> {
        self.raw.as_deref()
    }

    /// Names of all that lies in the place; empty if the fixture does not show it.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.raw().into_iter().flat_map(Raw::pieces).map(|(name, _)| name).collect();
        names.sort();
        names
    }
}

/// All backups. A single file that is not there holds none, and may say so with `NotFound`.
async fn list(make: &impl ArchiveFixture, archive: &dyn Archive) -> Vec<BackupSummary> {
    match archive.list(&Context::default()).await {
        Err(e) if make.single() && e.kind() == ErrorKind::NotFound => Vec::new(),
        listed => listed.must("list the backups"),
    }
}

/// What a listing says of this backup. Of an encrypted one beside others it knows nothing that is in it.
fn as_listed(make: &impl ArchiveFixture, made: &BackupSummary) -> BackupSummary {
    if !made.encrypted || make.single() {
        return made.clone();
    }
    BackupSummary {
        data_bytes: 0,
        entries: 0,
        components: Vec::new(),
        tags: Vec::new(),
        note: None,
        ..made.clone()
    }
}

/// Makes a test of every promise of an archive. The argument is an expression that makes an `ArchiveFixture`.
#[macro_export]
macro_rules! archive_conformance {
    ($fixture:expr) => {
        $crate::promises!(
            $fixture,
            archive,
            [
                // kept
                hostile_names_are_kept_byte_for_byte,
                empty_files_and_an_empty_component_are_kept,
                attributes_are_kept_to_the_nanosecond_and_byte,
                attributes_of_a_store_and_all_stages_are_kept,
                every_kind_of_entry_is_kept,
                a_component_that_is_one_file_is_kept,
                sparse_entries_keep_their_extents,
                a_hundred_thousand_tiny_entries_are_kept,
                an_entry_of_unknown_size_larger_than_any_segment_is_kept,
                // budget
                more_streams_than_fit_in_the_budget_come_to_an_end,
                components_poured_together_are_kept_apart,
                a_budget_that_cannot_suffice_is_an_error_at_begin,
                a_slow_stalled_stream_does_not_hold_up_another_component,
                // ends
                a_cut_stream_leaves_nothing_behind,
                a_panicking_producer_leaves_nothing_behind,
                a_failing_stream_leaves_nothing_behind,
                a_content_shorter_than_promised_leaves_nothing_behind,
                a_content_longer_than_promised_leaves_nothing_behind,
                a_content_of_another_digest_leaves_nothing_behind,
                a_discarded_entry_that_is_put_again_wins,
                what_was_discarded_and_not_put_again_is_lost,
                a_put_that_is_dropped_half_way_leaves_no_half_member,
                puts_after_the_end_are_refused,
                a_stage_that_goes_back_is_a_contract_error,
                a_path_put_twice_is_one_entry_or_an_error_or_a_defect,
                // commit
                commit_refuses_while_a_component_is_unfinished,
                commit_refuses_without_a_result_for_every_component,
                a_sink_is_given_once_and_only_for_a_component_of_the_header,
                abort_leaves_nothing_behind,
                nothing_is_visible_before_commit_except_as_incomplete,
                a_crashed_run_is_cleared_by_heal,
                a_crashed_run_is_cleared_by_the_next_run_of_its_series,
                heal_leaves_a_live_run_alone,
                earlier_backups_are_untouched_by_one_that_fails,
                the_manifest_says_what_was_concluded,
                a_partial_backup_is_listed_as_partial_and_can_be_read,
                backups_of_the_same_second_are_both_kept_oldest_first,
                an_id_is_never_taken_twice,
                a_listing_that_fails_is_an_error,
                removing_an_unknown_id_removes_nothing,
                removing_removes_these_and_nothing_else,
                verified_is_kept_beside_the_backup,
                cancellation_ends_a_backup_in_time_and_abort_leaves_nothing,
                // left_over
                a_backup_whose_provisional_name_is_left_is_there_once,
                // copied
                a_copy_is_the_same_backup,
                a_copy_is_made_once_and_as_a_whole,
                // locks
                a_second_run_of_a_series_is_refused_and_told_who_holds_the_lock,
                a_lock_that_was_released_or_dropped_is_free,
                a_run_that_waits_gets_the_lock,
                waiting_for_a_lock_ends_when_cancelled,
                two_series_run_side_by_side,
                // reading
                reading_back_suits_a_sink_that_takes_one_put_at_a_time,
                reading_back_suits_a_sink_that_takes_two_puts_at_a_time,
                reading_back_suits_a_sink_that_answers_last_first,
                reading_back_suits_a_sink_that_is_slow_on_one_path,
                reading_back_ends_with_the_error_of_a_broken_sink,
                cancellation_ends_a_read_in_time,
                the_proof_of_the_backup_is_what_is_read,
                the_listing_of_entries_is_what_is_read,
                a_selection_gives_exactly_its_entries_and_their_facts,
                the_content_of_one_entry_is_read_by_its_path,
                one_entry_costs_little_to_fetch,
                unknown_components_and_paths_are_errors,
                a_sound_backup_has_no_defects,
                // damage
                a_flipped_byte_is_never_read_as_data,
                a_cut_or_missing_piece_is_never_read_as_data,
            ]
        );
    };
}
