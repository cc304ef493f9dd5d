//! One error type for the whole library: what kind, during which operation, on what, whether a retry may help, and the way out.

use std::{borrow::Cow, error::Error as StdError, fmt, sync::Arc};

/// The result of every fallible call of the library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as far as a program needs to know. Stable: hosts and exit codes are built on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The call itself is wrong, or something that it needs is missing. Nothing was touched.
    Usage,
    /// A source, a backup, a component or a path does not exist.
    NotFound,
    /// The system or the server said no.
    Denied,
    /// A source could not be read.
    Source,
    /// The place where backups are kept could not be written or read.
    Destination,
    /// A target could not be written.
    Target,
    /// The run ended, but not everything is in the backup, or not everything was restored.
    Partial,
    /// A rule forbids it: not confirmed, the plan has changed, the target is not empty.
    Refused,
    /// Another run of the same series holds the lock.
    AlreadyRunning,
    /// What is stored is not what was written: a digest, a count or a structure differs.
    Damaged,
    /// A stream stopped without saying that it is whole.
    Cut,
    /// The run was cancelled by its caller.
    Cancelled,
    /// A restore failed and everything is as it was before.
    RolledBack,
    /// A restore failed and could not be undone: `heal` must be run.
    NotRolledBack,
    /// A store or an author of a store broke a rule of the contracts. A defect in code.
    Contract,
    /// More bytes in flight were asked for than the run allows at all.
    Budget,
    /// A task panicked. A defect in code.
    Panicked,
    /// The thing exists but cannot be handled by this version or on this platform.
    Unsupported,
}

/// An error of the library. Cheap to clone; its `Display` is one line.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    operation: Cow<'static, str>,
    subject: Option<String>,
    message: String,
    hint: Option<String>,
    retry: bool,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// `operation` is what was being done ("open the archive"), `message` what happened.
    pub fn new(kind: ErrorKind, operation: impl Into<Cow<'static, str>>, message: impl fmt::Display) -> Self {
        Error(Arc::new(Inner {
            kind,
            operation: operation.into(),
            subject: None,
            message: message.to_string(),
            hint: None,
            retry: false,
            source: None,
        }))
    }

    /// From an error of the system: the kind is refined where the system's says more (not found, denied), `kind` otherwise.
    pub fn io(kind: ErrorKind, operation: impl Into<Cow<'static, str>>, e: std::io::Error) -> Self {
        let refined = match e.kind() {
            std::io::ErrorKind::NotFound if kind == ErrorKind::Source => ErrorKind::NotFound,
            std::io::ErrorKind::PermissionDenied if kind == ErrorKind::Source => ErrorKind::Denied,
            _ => kind,
        };
        let retry = matches!(e.kind(), std::io::ErrorKind::Interrupted | std::io::ErrorKind::TimedOut);
        Self::new(refined, operation, &e).retry(retry).caused_by(e)
    }

    /// Something broke a rule of the contracts.
    pub fn contract(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Contract, "check the contract", message)
    }

    /// The run was cancelled.
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "run", "cancelled")
    }

    /// A stream stopped before its end was said.
    pub fn cut() -> Self {
        Self::new(ErrorKind::Cut, "read a stream", "it stopped without saying that it is whole")
    }

    /// What is stored is not what was written.
    pub fn damaged(operation: impl Into<Cow<'static, str>>, message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Damaged, operation, message)
    }

    fn edit(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Names the thing: a component, a path, a file. The innermost name wins.
    #[must_use]
    pub fn on(self, subject: impl fmt::Display) -> Self {
        self.edit(|i| {
            i.subject.get_or_insert_with(|| subject.to_string());
        })
    }

    /// Names the whole that the thing is a part of, beside it: `x.tar.zst: frame 3`.
    #[must_use]
    pub fn within(self, whole: impl fmt::Display) -> Self {
        let whole = whole.to_string();
        self.edit(|i| match &mut i.subject {
            Some(part) if part.contains(&whole) => {}
            Some(part) => *part = format!("{whole}: {part}"),
            none => *none = Some(whole),
        })
    }

    /// The way out, for a person.
    #[must_use]
    pub fn hint(self, hint: impl fmt::Display) -> Self {
        self.edit(|i| i.hint = Some(hint.to_string()))
    }

    /// The way out with the variables of this component (`BACKUP_<NAME>_PASSWORD`): whoever said it did not know whose they are.
    #[must_use]
    pub(crate) fn for_component(self, name: &str) -> Self {
        let part = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        let variable = format!("BACKUP_{}_", name.chars().map(part).collect::<String>());
        self.edit(|i| i.hint = i.hint.take().map(|hint| hint.replace("BACKUP_<NAME>_", &variable)))
    }

    /// Whether the same call may succeed a little later.
    #[must_use]
    pub fn retry(self, retry: bool) -> Self {
        self.edit(|i| i.retry = retry)
    }

    /// The error underneath.
    #[must_use]
    pub fn caused_by(self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.edit(|i| i.source = Some(Arc::new(source)))
    }

    /// The same error seen one level up, where it means something else (a failed publish that was undone is `RolledBack`).
    #[must_use]
    pub fn with_kind(self, kind: ErrorKind) -> Self {
        self.edit(|i| i.kind = kind)
    }

    /// Whether what was read is not what was stored, where the reader of a backup says it; other kinds tell that it could not be read.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Damaged | ErrorKind::Cut | ErrorKind::Source)
    }

    /// What a program needs to know.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What was being done.
    pub fn operation(&self) -> &str {
        &self.0.operation
    }

    /// The thing it happened to.
    pub fn subject(&self) -> Option<&str> {
        self.0.subject.as_deref()
    }

    /// What happened, without operation and subject.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The way out.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Whether the same call may succeed a little later.
    pub fn may_retry(&self) -> bool {
        self.0.retry
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.subject {
            Some(subject) => write!(f, "{}: cannot {}: {}", subject, self.0.operation, self.0.message),
            None => write!(f, "cannot {}: {}", self.0.operation, self.0.message),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({self})", self.0.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|s| &**s as &(dyn StdError + 'static))
    }
}

impl serde::Serialize for Error {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut out = s.serialize_struct("Error", 6)?;
        out.serialize_field("kind", &self.0.kind)?;
        out.serialize_field("operation", &self.0.operation)?;
        out.serialize_field("subject", &self.0.subject)?;
        out.serialize_field("message", &self.0.message)?;
        out.serialize_field("hint", &self.0.hint)?;
        out.serialize_field("retry", &self.0.retry)?;
        out.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_out_names_the_variable_of_the_component() {
        let e = Error::new(ErrorKind::Denied, "connect", "wrong password").hint("set BACKUP_<NAME>_PASSWORD");
        assert_eq!(e.for_component("shop.my-db").hint_text(), Some("set BACKUP_SHOP_MY_DB_PASSWORD"));
    }
}
