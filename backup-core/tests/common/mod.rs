//! Small stores for the tests of the pipelines: a source that is a script, and a target that is one file on disk.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use async_trait::async_trait;
use backup_core::*;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fmt, fs,
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex},
    task::Poll,
};

pub type Pour = Arc<dyn Fn(Arc<dyn Sink>, Context) -> BoxFuture<'static, Result<Facts>> + Send + Sync>;

/// Fails where it is told to.
#[derive(Clone)]
pub struct Script {
    pub connect: Option<Error>,
    pub fix: Option<Error>,
    pub pour: Pour,
    pub log: Arc<Mutex<Vec<String>>>,
}

pub fn script<F, Fut>(pour: F) -> Script
where
    F: Fn(Arc<dyn Sink>, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Facts>> + Send + 'static,
{
    Script {
        connect: None,
        fix: None,
        pour: Arc::new(move |s, cx| Box::pin(pour(s, cx))),
        log: Arc::default(),
    }
}

/// Puts these files, those that end with `.sql` as definitions; a text of `!` fails.
pub fn files(list: &'static [(&'static str, &'static str)]) -> Script {
    script(move |sink, cx| async move {
        let is_definition = |path: &str| path.ends_with(".sql");
        for stage in [Stage::Prepare, Stage::Data] {
            let its = list.iter().filter(|(path, _)| is_definition(path) == (stage == Stage::Prepare));
            let items = its.map(|(path, text)| {
                let content = match *text {
                    "!" => Content::failed(Error::new(ErrorKind::Denied, "open", "no")),
                    text => Content::whole(text),
                };
                Ok((Entry::file(*path, stage), content))
            });
            put_stage(&sink, &cx, futures::stream::iter(items)).await?;
        }
        Ok(Facts::new())
    })
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("script")
    }
}

#[async_trait]
impl Source for Script {
    async fn connect(&self, _cx: &Context) -> Result<Box<dyn Ready>> {
        self.log.lock().unwrap().push("connect".into());
        self.connect.clone().map_or_else(|| Ok(Box::new(self.clone()) as Box<dyn Ready>), Err)
    }
}

#[async_trait]
impl Ready for Script {
    fn stillness(&self) -> Stillness {
        Stillness::None
    }

    async fn fix(self: Box<Self>, _cx: &Context) -> Result<Box<dyn View>> {
        self.log.lock().unwrap().push("fix".into());
        match self.fix.clone() {
            Some(e) => Err(e),
            None => Ok(self),
        }
    }
}

#[async_trait]
impl View for Script {
    fn moment(&self) -> Moment {
        Moment::now()
    }

    async fn pour(self: Box<Self>, sink: Arc<dyn Sink>, cx: &Context) -> Result<Facts> {
        (self.pour)(sink, cx.clone()).await
    }
}

pub fn component(name: &str, source: Script) -> CreateComponent {
    let header = ComponentHeader {
        name: name.into(),
        kind: "script".into(),
        folder: "files".into(),
        origin: Value::Null,
    };
    CreateComponent { header, source: Box::new(source) }
}

pub fn request(components: Vec<CreateComponent>) -> CreateRequest {
    CreateRequest {
        module: "shop".into(),
        series: Series("here:shop".into()),
        components,
        ..CreateRequest::default()
    }
}

pub fn failed(what: &'static str) -> Error {
    Error::new(ErrorKind::Source, what, "the server is away")
}

/// A store that is one file: a line `path=text` for each entry. Its shadow and its old data lie in its home.
pub struct FileTarget {
    pub place: PathBuf,
    pub home: PathBuf,
    existed: bool,
    pub fault: Option<Fault>,
    pub local: bool,
    pub in_place: bool,
    pub free_bytes: Option<u64>,
    pub notes: Vec<String>,
    pub refusals: Vec<Refusal>,
    pub log: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum How {
    Fail,
    /// It finds something wrong with what it holds.
    Damaged,
    /// It changes nothing, and knows a way out.
    Refuse,
    Panic,
    Hang,
}

/// At the step of this name.
#[derive(Clone, Copy, Debug)]
pub struct Fault(pub &'static str, pub How);

impl FileTarget {
    pub fn new(place: impl Into<PathBuf>) -> Self {
        let place: PathBuf = place.into();
        let name = place.file_name().unwrap().to_string_lossy().into_owned();
        FileTarget {
            home: place.with_file_name(format!(".{name}.backup-1")),
            existed: place.exists(),
            place,
            fault: None,
            local: true,
            in_place: false,
            free_bytes: None,
            notes: Vec::new(),
            refusals: Vec::new(),
            log: Arc::default(),
        }
    }

    pub fn fault(mut self, step: &'static str, how: How) -> Self {
        self.fault = Some(Fault(step, how));
        self
    }

    pub fn existed(mut self, existed: bool) -> Self {
        self.existed = existed;
        self
    }

    /// Every step is also a point at which a test may drop the whole run.
    async fn step(&self, name: &'static str) -> Result<()> {
        let stem = self.place.file_name().unwrap().to_string_lossy();
        self.log.lock().unwrap().push(format!("{name} {stem}"));
        tokio::task::yield_now().await;
        match self.fault {
            Some(Fault(step, How::Fail)) if step == name => {
                Err(Error::new(ErrorKind::Target, name, "the disk is full"))
            }
            Some(Fault(step, How::Damaged)) if step == name => Err(Error::damaged(name, "a row is missing")),
            Some(Fault(step, How::Refuse)) if step == name => {
                Err(Error::new(ErrorKind::Refused, name, "a view needs it").hint("drop the view"))
            }
            Some(Fault(step, How::Panic)) if step == name => panic!("a defect in {name}"),
            Some(Fault(step, How::Hang)) if step == name => std::future::pending().await,
            _ => Ok(()),
        }
    }

    fn inside(&self, name: &str) -> PathBuf {
        self.home.join(format!("{}.{name}", self.place.file_name().unwrap().to_string_lossy()))
    }
}

/// A folder need not be there when nothing was prepared.
fn drop_file(path: &Path) {
    let _ = fs::remove_file(path);
}

/// Containers by name, and whether they run. Every change is also a point at which a test may drop the run.
#[derive(Clone, Default)]
pub struct Containers(pub Arc<Mutex<BTreeMap<String, bool>>>);

impl Containers {
    pub fn running(names: &[&str]) -> Self {
        Containers(Arc::new(Mutex::new(names.iter().map(|n| ((*n).to_owned(), true)).collect())))
    }

    pub fn set(&self, name: &str, runs: bool) {
        self.0.lock().unwrap().insert(name.to_owned(), runs);
    }

    async fn change(&self, name: &str, runs: bool) -> Result<()> {
        tokio::task::yield_now().await;
        self.set(name, runs);
        tokio::task::yield_now().await;
        Ok(())
    }

    pub fn state(&self) -> BTreeMap<String, bool> {
        self.0.lock().unwrap().clone()
    }
}

#[async_trait]
impl ContainerEngine for Containers {
    async fn inspect(&self, name: &str) -> Result<ContainerFacts> {
        let running = self.0.lock().unwrap().get(name).copied();
        let running =
            running.ok_or_else(|| Error::new(ErrorKind::NotFound, "look at the container", "no"))?;
        Ok(ContainerFacts { name: name.to_owned(), running, ..ContainerFacts::default() })
    }

    async fn publishing(&self, _port: u16) -> Result<Option<ContainerFacts>> {
        Ok(None)
    }

    fn runner(&self, _id: &str) -> Arc<dyn CommandRunner> {
        Arc::new(NoContainers)
    }

    async fn stop(&self, name: &str) -> Result<()> {
        self.change(name, false).await
    }

    async fn start(&self, name: &str) -> Result<()> {
        self.change(name, true).await
    }
}

impl Recovery for Containers {
    fn target(&self, kind: &str, undo: Value) -> Result<Box<dyn Target>> {
        recover(kind, undo)
    }

    fn containers(&self) -> Arc<dyn ContainerEngine> {
        Arc::new(self.clone())
    }
}

pub fn recover(kind: &str, undo: Value) -> Result<Box<dyn Target>> {
    assert_eq!(kind, "file");
    let path = |key: &str| PathBuf::from(undo[key].as_str().unwrap());
    let mut target = FileTarget::new(path("place"));
    target.home = path("home");
    target.existed = undo["existed"].as_bool().unwrap();
    Ok(Box::new(target))
}

impl fmt::Display for FileTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.place.display())
    }
}

#[async_trait]
impl Target for FileTarget {
    async fn survey(&mut self, _incoming: &Incoming, _cx: &Context) -> Result<Survey> {
        Ok(Survey {
            place: self.place.display().to_string(),
            replaces: self.place.exists(),
            present: "a file".into(),
            identity: fs::read_to_string(&self.place).unwrap_or_default(),
            free_bytes: self.free_bytes,
            notes: self.notes.clone(),
            in_place: self.in_place && self.place.exists(),
            refusals: self.refusals.clone(),
            local_path: self.local.then(|| self.place.clone()),
            ..Survey::default()
        })
    }

    fn undo(&self) -> Value {
        json!({ "place": self.place, "home": self.home, "existed": self.existed })
    }

    fn journal_home(&self) -> Option<PathBuf> {
        self.local.then(|| self.home.clone())
    }

    async fn prepare(&mut self, _cx: &Context) -> Result<Arc<dyn Sink>> {
        self.step("prepare").await?;
        if !self.local {
            fs::create_dir_all(&self.home).unwrap();
        }
        fs::write(self.inside("new"), "").unwrap();
        self.step("prepared").await?;
        Ok(Arc::new(FileSink::new(self)))
    }

    async fn rehearse(&mut self, cx: &Context) -> Result<Option<Arc<dyn Sink>>> {
        self.step("rehearse").await?;
        cx.note(Severity::Warning, "", "", "noted in a rehearsal");
        fs::create_dir_all(&self.home).unwrap();
        fs::write(self.inside("new"), "").unwrap();
        let log = Some(self.log.clone());
        Ok(Some(Arc::new(FileSink { log, skips: false, ..FileSink::new(self) })))
    }

    async fn clear(&mut self, _cx: &Context) -> Result<()> {
        self.step("clear").await?;
        fs::write(self.inside("cleared"), "").unwrap();
        drop_file(&self.place);
        self.step("cleared").await
    }

    async fn check_revert(&mut self, _cx: &Context) -> Result<()> {
        let gone = self.existed && !self.place.exists() && !self.inside("old").exists();
        match gone || self.inside("cleared").exists() {
            true => Err(Error::new(ErrorKind::Refused, "look for the old data", "it is gone")),
            false => Ok(()),
        }
    }

    async fn publish(&mut self, _cx: &Context) -> Result<()> {
        self.step("publish").await?;
        if self.existed && !self.in_place {
            fs::rename(&self.place, self.inside("old")).unwrap();
        }
        self.step("half").await?;
        fs::rename(self.inside("new"), &self.place).unwrap();
        self.step("published").await
    }

    async fn revert(&mut self, _cx: &Context) -> Result<()> {
        self.step("revert").await?;
        let (old, new) = (self.inside("old"), self.inside("new"));
        if old.exists() {
            if self.place.exists() {
                fs::rename(&self.place, self.inside("rejected")).unwrap();
                self.step("reverting").await?;
            }
            fs::rename(old, &self.place).unwrap();
        } else if !self.existed || self.inside("cleared").exists() {
            drop_file(&self.place);
        }
        self.step("reverted").await?;
        drop_file(&self.inside("cleared"));
        drop_file(&new);
        drop_file(&self.inside("rejected"));
        if !self.local {
            let _ = fs::remove_dir(&self.home);
        }
        Ok(())
    }

    async fn settle(&mut self, _cx: &Context) -> Result<()> {
        self.step("settle").await?;
        drop_file(&self.inside("old"));
        self.step("settled").await?;
        drop_file(&self.inside("cleared"));
        drop_file(&self.inside("new"));
        if !self.local {
            let _ = fs::remove_dir(&self.home);
        }
        Ok(())
    }
}

struct FileSink {
    shadow: PathBuf,
    lines: Mutex<BTreeMap<String, String>>,
    tally: Mutex<Tally>,
    skips: bool,
    damaged: bool,
    /// Of what is put.
    log: Option<Arc<Mutex<Vec<String>>>>,
}

impl FileSink {
    fn new(target: &FileTarget) -> Self {
        FileSink {
            shadow: target.inside("new"),
            lines: Mutex::default(),
            tally: Mutex::default(),
            skips: target.fault.is_some_and(|f| f.0 == "skip"),
            damaged: target.fault.is_some_and(|Fault(step, how)| (step, how) == ("finish", How::Damaged)),
            log: None,
        }
    }
}

impl fmt::Display for FileSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("shadow")
    }
}

#[async_trait]
impl Sink for FileSink {
    async fn put(&self, entry: Entry, content: Content) -> Result<Put> {
        if let Some(log) = &self.log {
            log.lock().unwrap().push(format!("put {}", entry.display_path()));
        }
        let mut content = content.hashed(&entry);
        let mut text = Vec::new();
        loop {
            match content.next().await {
                Ok(Some(b)) => text.extend_from_slice(&b),
                Ok(None) => break,
                Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
                Err(e) => return Ok(Put::Discarded(e.to_string().into())),
            }
        }
        if !(self.skips && text.is_empty()) {
            self.tally.lock().unwrap().add(&entry, content.delivered(), &content.digest().unwrap());
        }
        self.lines.lock().unwrap().insert(entry.display_path(), String::from_utf8(text).unwrap());
        Ok(Put::Stored)
    }

    async fn finish(&self, _cx: &Context) -> Result<Proof> {
        if self.damaged {
            return Err(Error::damaged("finish", "a row is missing"));
        }
        let lines: String = self.lines.lock().unwrap().iter().map(|(p, t)| format!("{p}={t}\n")).collect();
        fs::write(&self.shadow, lines).unwrap();
        Ok(self.tally.lock().unwrap().facts())
    }
}

/// Polls a future this often, and then drops it: what a crash at that point does to a run. `None`: it was dropped.
pub fn dropped_after<F: Future>(polls: usize, future: F) -> impl Future<Output = Option<F::Output>> {
    let mut left = polls;
    let mut future: Option<Pin<Box<F>>> = Some(Box::pin(future));
    std::future::poll_fn(move |cx| {
        let Some(running) = future.as_mut().filter(|_| left > 0) else {
            future = None;
            return Poll::Ready(None);
        };
        match running.as_mut().poll(cx) {
            Poll::Ready(out) => Poll::Ready(Some(out)),
            Poll::Pending => {
                left -= 1;
                if left == 0 {
                    future = None;
                    return Poll::Ready(None);
                }
                Poll::Pending
            }
        }
    })
}
