//! A backup of three components and the data that it is restored over.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use crate::common::*;
use backup_core::*;
use std::{collections::BTreeSet, fs, path::PathBuf, sync::Arc};
use tempfile::TempDir;

pub const NAMES: [&str; 3] = ["one", "two", "three"];
pub const NEW: &str = "a=new\nb=\n";

pub struct Scene {
    pub dir: TempDir,
    pub archive: MemoryArchive,
    pub backup: BackupId,
    pub cx: Context,
}

/// A backup of three components; `one` and `two` exist with old data, `three` does not.
pub async fn scene() -> Scene {
    scene_of(&[("a", "new"), ("b", "")]).await
}

/// The same of components that hold these files.
pub async fn scene_of(held: &'static [(&'static str, &'static str)]) -> Scene {
    let (archive, cx) = (MemoryArchive::new(), Context::default());
    let components = NAMES.map(|n| component(n, files(held)));
    let backup = create(request(components.into()), &archive, &cx).await.unwrap().id;
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("data")).unwrap();
    for name in &NAMES[..2] {
        fs::write(dir.path().join("data").join(name), "old").unwrap();
    }
    Scene { dir, archive, backup, cx: Context::default() }
}

impl Scene {
    pub fn place(&self, name: &str) -> PathBuf {
        self.dir.path().join("data").join(name)
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn target(&self, name: &str) -> FileTarget {
        FileTarget::new(self.place(name))
    }

    pub fn targets(&self) -> Vec<FileTarget> {
        NAMES.iter().map(|n| self.target(n)).collect()
    }

    pub fn homes(&self) -> Vec<PathBuf> {
        self.targets().into_iter().map(|t| t.home).collect()
    }

    pub async fn plan(
        &self,
        targets: Vec<FileTarget>,
        change: impl FnOnce(&mut RestoreOptions),
    ) -> Result<PreparedRestore> {
        let reader = self.archive.open(&self.backup, &self.cx).await?;
        self.plan_from(reader, targets, change).await
    }

    pub async fn plan_from(
        &self,
        reader: Arc<dyn BackupReader>,
        targets: Vec<FileTarget>,
        change: impl FnOnce(&mut RestoreOptions),
    ) -> Result<PreparedRestore> {
        let mut options = RestoreOptions::new(self.state(), "shop");
        change(&mut options);
        let member = |t: FileTarget| RestoreMember {
            component: t.place.file_name().unwrap().to_string_lossy().into_owned(),
            kind: "file".into(),
            selection: Selection::All,
            target: Box::new(t),
            disposable: false,
        };
        plan_restore(reader, targets.into_iter().map(member).collect(), options, &self.cx).await
    }

    pub async fn restore(
        &self,
        targets: Vec<FileTarget>,
        change: impl FnOnce(&mut RestoreOptions),
    ) -> Result<RestoreReport> {
        let prepared = self.plan(targets, change).await?;
        let consent = Confirmation::of(prepared.plan().id().clone());
        prepared.apply(Some(consent), &self.cx).await
    }

    pub async fn heal(&self, hours: i64) -> Vec<Healed> {
        let now = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(hours);
        heal_restores(&self.state(), &self.homes(), &recover, now, &Context::default()).await.unwrap()
    }

    pub fn live(&self) -> Vec<Option<String>> {
        NAMES.iter().map(|n| fs::read_to_string(self.place(n)).ok()).collect()
    }

    pub fn is_old(&self) -> bool {
        self.live() == [Some("old".into()), Some("old".into()), None]
    }

    pub fn is_new(&self) -> bool {
        self.live() == [NEW; 3].map(|t| Some(t.to_owned()))
    }

    /// Everything but the data itself.
    pub fn traces(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        let mut folders = vec![self.dir.path().join("data"), self.state().join("restores")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path.clone());
                }
                found.insert(path);
            }
        }
        NAMES.iter().for_each(|n| _ = found.remove(&self.place(n)));
        found
    }

    pub fn assert_old_without_traces(&self) {
        assert!(self.is_old(), "{:?}", self.live());
        assert!(self.traces().is_empty(), "{:?}", self.traces());
    }
}
