//! A folder that a backup is restored over, and things outside of it that nobody may touch.

use backup_core::{
    Archive, Backend, BackupReader, Confirmation, Context, Depth, RestoreMember, RestoreOptions,
    RestoreReport, Result, Selection, Target, plan_restore, portable::PortableArchive,
    portable::PortableOptions, verify,
};
use backup_files::FilesBackend;
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;

/// No archive of these tests may keep anybody busy for longer.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    pub(crate) dir: TempDir,
    cx: Context,
}

impl World {
    pub(crate) fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        for (folder, file) in [("live/data", "old"), ("outside", "precious")] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
            fs::write(dir.path().join(folder).join(file), file).unwrap();
        }
        World { dir, cx: Context::default() }
    }

    pub(crate) fn outside(&self) -> String {
        self.dir.path().join("outside").to_str().unwrap().to_owned()
    }

    pub(crate) fn live(&self) -> PathBuf {
        self.dir.path().join("live/data")
    }

    pub(crate) fn target(&self) -> Box<dyn Target> {
        FilesBackend.target("data", json!({ "path": self.live() })).unwrap()
    }

    pub(crate) fn save(&self, archive: &[u8]) -> PathBuf {
        let name = if archive.ends_with(&0x8F92_EAB1_u32.to_le_bytes()) { "x.tar.zst" } else { "x.tar" };
        fs::write(self.dir.path().join(name), archive).unwrap();
        self.dir.path().join(name)
    }

    pub(crate) async fn open(&self, path: &Path) -> Result<Arc<dyn BackupReader>> {
        let archive = PortableArchive::file(path, PortableOptions::default())?;
        let id = archive.list(&self.cx).await?.remove(0).id;
        archive.open(&id, &self.cx).await
    }

    /// Everything that is wrong with it, as a full verification says.
    pub(crate) async fn defects(&self, reader: &Arc<dyn BackupReader>) -> Vec<String> {
        let report = tokio::time::timeout(PATIENCE, verify(reader.clone(), Depth::Full, &self.cx)).await;
        match report.expect("the verification does not end") {
            Ok(report) => report.defects.iter().map(ToString::to_string).collect(),
            Err(e) => vec![e.to_string()],
        }
    }

    pub(crate) async fn restore(&self, reader: &Arc<dyn BackupReader>) -> Result<RestoreReport> {
        self.restore_accepting(reader, &[]).await
    }

    pub(crate) async fn restore_accepting(
        &self,
        reader: &Arc<dyn BackupReader>,
        accept: &[&str],
    ) -> Result<RestoreReport> {
        let member = RestoreMember {
            component: "data".into(),
            kind: "files".into(),
            selection: Selection::All,
            target: self.target(),
            disposable: false,
        };
        let mut options = RestoreOptions::new(self.dir.path().join("state"), "shop");
        // Whoever restores a lie may have been talked into this, too.
        options.accept_partial = true;
        options.accept = accept.iter().map(|name| (*name).to_owned()).collect();
        let planned = plan_restore(reader.clone(), vec![member], options, &self.cx);
        let prepared = tokio::time::timeout(PATIENCE, planned).await.expect("the plan does not end")?;
        let consent = Confirmation::of(prepared.plan().id().clone());
        let applied = prepared.apply(Some(consent), &self.cx);
        tokio::time::timeout(PATIENCE, applied).await.expect("the restore does not end")
    }

    /// What a restore would do that did not look at the structure first: the target must defend itself.
    pub(crate) async fn pour(&self, reader: &Arc<dyn BackupReader>) {
        let mut target = self.target();
        let sink = target.prepare(&self.cx).await.unwrap();
        let poured = async {
            let source = reader.component("data", Selection::All)?;
            let view = source.connect(&self.cx).await?.fix(&self.cx).await?;
            view.pour(sink.clone(), &self.cx).await?;
            sink.finish(&self.cx).await
        };
        let _ = tokio::time::timeout(PATIENCE, poured).await.expect("the pour does not end");
        drop(sink);
        target.revert(&self.cx).await.unwrap();
    }

    /// Names and contents of what is alive and of what is outside.
    pub(crate) fn picture(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.dir.path().join("live"), self.dir.path().join("outside")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let meta = fs::symlink_metadata(&path).unwrap();
                let what = if meta.is_dir() {
                    folders.push(path.clone());
                    "a folder".to_owned()
                } else if meta.is_file() {
                    fs::read_to_string(&path).unwrap()
                } else {
                    format!("{:?}", meta.file_type())
                };
                found.insert(path, what);
            }
        }
        found
    }
}

/// The archive cannot be restored, nothing is changed by trying it, and whoever looks at it is told why.
pub(crate) async fn refused(archive: &[u8], why: &str) {
    refused_in(&World::new(), archive, why).await;
}

pub(crate) async fn refused_in(world: &World, archive: &[u8], why: &str) {
    let path = world.save(archive);
    refused_file(world, &path, why).await;
}

pub(crate) async fn refused_file(world: &World, path: &Path, why: &str) {
    let before = world.picture();
    match world.open(path).await {
        Err(e) => assert!(e.to_string().contains(why), "{why:?} is not said: {e}"),
        Ok(reader) => {
            let defects = world.defects(&reader).await;
            assert!(defects.iter().any(|d| d.contains(why)), "{why:?} is not said: {defects:#?}");
            let restored = world.restore(&reader).await;
            assert!(restored.is_err(), "it was restored: {restored:?}");
            assert_eq!(world.picture(), before);
            world.pour(&reader).await;
        }
    }
    assert_eq!(world.picture(), before);
}
