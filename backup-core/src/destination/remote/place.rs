//! A remote place as it is named: `s3://bucket/prefix?endpoint=…`.

use crate::{Error, ErrorKind, Result, RetryPolicy, Secret, without_secrets};
use reqwest::Url;
use std::{path::PathBuf, time::Duration};

/// Kinds of servers, by the scheme of their URLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    S3,
    Sftp,
    WebdavPlain,
    WebdavTls,
}

/// Where and how a remote place is reached: what its URL says, completed by what is configured.
#[derive(Clone, Debug)]
pub struct RemotePlace {
    pub(super) scheme: Scheme,
    /// The bucket, or the host.
    pub(super) host: String,
    pub(super) port: Option<u16>,
    pub(super) user: Option<String>,
    /// Without slashes at its ends; of SFTP `~/` before a path is the home of the user.
    pub(super) path: String,
    pub(super) settings: RemoteSettings,
}

/// What a URL does not say of a remote place, or says behind its `?`. What is `None` has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteSettings {
    /// S3: URL of the server; that of AWS if not given.
    pub endpoint: Option<String>,
    /// S3: the region; `us-east-1` with an endpoint of one's own, else that of the environment.
    pub region: Option<String>,
    /// S3: the bucket in the path of requests instead of the host name; true with an endpoint of one's own.
    pub path_style: Option<bool>,
    /// S3: the access key. If it is not given, the standard chain of AWS is asked: environment, profile, role.
    pub access_key_id: Option<String>,
    /// S3: the secret of the access key.
    pub secret_access_key: Option<Secret>,
    /// WebDAV: the password of the user in the URL.
    pub password: Option<Secret>,
    /// S3 and WebDAV: a file of certificates (PEM) that are trusted instead of those of this system.
    pub ca_file: Option<PathBuf>,
    /// Bytes a second that may pass, in both directions together; 10 KiB at least.
    pub limit_rate: Option<u64>,
    /// A connection on which nothing moves for so long is given up; 30 seconds.
    pub patience: Option<Duration>,
    /// How calls are repeated whose failure may pass; six calls, within about six seconds.
    pub retry: Option<RetryPolicy>,
}

impl RemotePlace {
    /// Reads a URL; `None` if its scheme is none of a remote place. Unknown options and secrets in it are errors.
    pub fn parse(text: &str) -> Result<Option<Self>> {
        let scheme = match text.split_once("://").map(|(scheme, _)| scheme) {
            Some("s3") => Scheme::S3,
            Some("sftp") => Scheme::Sftp,
            Some("webdav") => Scheme::WebdavPlain,
            Some("webdavs") => Scheme::WebdavTls,
            _ => return Ok(None),
        };
        let wrong = |message: String| usage(message).on(without_secrets(text));
        let url = Url::parse(text).map_err(|e| wrong(format!("its URL is wrong: {e}")))?;
        let decode = |part: &str| {
            percent_encoding::percent_decode_str(part)
                .decode_utf8()
                .map(|s| s.into_owned())
                .map_err(|_| wrong("its URL is not text".into()))
        };
        if url.password().is_some() || (scheme == Scheme::S3 && !url.username().is_empty()) {
            let hint = "secrets come from the environment or the configuration: `backup config example`";
            return Err(wrong("a secret stands in the URL, where others can see it".into()).hint(hint));
        }
        if url.fragment().is_some() {
            return Err(wrong("a `#` in it must be written %23".into()));
        }
        let host = url.host_str().filter(|h| !h.is_empty());
        let what = if scheme == Scheme::S3 { "bucket" } else { "host" };
        let host = decode(host.ok_or_else(|| wrong(format!("it names no {what}")))?)?;
        if scheme == Scheme::S3 && url.port().is_some() {
            let hint = format!("s3://BUCKET/PREFIX?endpoint=http://{host}:PORT");
            return Err(wrong("a bucket has no port".into()).hint(hint));
        }
        let mut settings = RemoteSettings::default();
        for (key, value) in url.query_pairs() {
            let value = value.into_owned();
            match (scheme, &*key) {
                (Scheme::S3, "endpoint") => settings.endpoint = Some(value),
                (Scheme::S3, "region") => settings.region = Some(value),
                (Scheme::S3, "path_style") => {
                    settings.path_style =
                        Some(value.parse().map_err(|_| wrong("path_style is true or false".into()))?);
                }
                (Scheme::S3, _) => {
                    let known = "endpoint, region, path_style";
                    return Err(wrong(format!("`{key}` is no option of it; there are: {known}")));
                }
                _ => return Err(wrong(format!("it has no options, `{key}` is one"))),
            }
        }
        let user = Some(decode(url.username())?).filter(|u| !u.is_empty());
        let path = decode(url.path())?.trim_matches('/').to_owned();
        if path.split('/').any(|part| matches!(part, "." | "..")) {
            return Err(wrong("`.` and `..` cannot be in its path".into()));
        }
        Ok(Some(RemotePlace { scheme, host, port: url.port(), user, path, settings }))
    }

    /// Completes the settings; one that is given here and in the URL with another value is an error.
    pub fn configured(mut self, more: RemoteSettings) -> Result<Self> {
        let (s3, dav) = (self.is_s3(), self.has_password());
        let mut foreign = None;
        for (given, known, name) in [
            (more.endpoint.is_some(), s3, "endpoint"),
            (more.region.is_some(), s3, "region"),
            (more.path_style.is_some(), s3, "path_style"),
            (more.access_key_id.is_some(), s3, "access_key_id"),
            (more.secret_access_key.is_some(), s3, "secret_access_key"),
            (more.password.is_some(), dav, "password"),
            (more.ca_file.is_some(), s3 || dav, "ca_file"),
        ] {
            if given && !known {
                foreign = Some(name);
            }
        }
        if let Some(name) = foreign {
            let hint = match self.scheme {
                Scheme::Sftp => {
                    "keys and passwords of SFTP are those of ssh: its agent and its configuration"
                }
                _ => "`backup config example` shows what there is",
            };
            return Err(usage(format!("it has no `{name}`")).on(self).hint(hint));
        }
        let mine = &mut self.settings;
        let same = merge(&mut mine.endpoint, more.endpoint)
            & merge(&mut mine.region, more.region)
            & merge(&mut mine.path_style, more.path_style);
        mine.access_key_id = more.access_key_id.or(mine.access_key_id.take());
        mine.secret_access_key = more.secret_access_key.or(mine.secret_access_key.take());
        mine.password = more.password.or(mine.password.take());
        mine.ca_file = more.ca_file.or(mine.ca_file.take());
        mine.limit_rate = more.limit_rate.or(mine.limit_rate);
        mine.patience = more.patience.or(mine.patience);
        mine.retry = more.retry.or(mine.retry);
        match same {
            true => Ok(self),
            false => Err(usage("an option of its URL is configured with another value, too").on(self)),
        }
    }

    /// The name of the one object, if the URL ends in one that `is_file` knows; the place becomes the folder that it is in.
    pub(crate) fn split_file(&mut self, is_file: impl Fn(&str) -> bool) -> Option<String> {
        let (folder, name) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let name = Some(name).filter(|name| is_file(name))?.to_owned();
        self.path = folder.to_owned();
        Some(name)
    }

    /// Whether it is a bucket.
    pub fn is_s3(&self) -> bool {
        self.scheme == Scheme::S3
    }

    /// Whether its user has a password.
    pub fn has_password(&self) -> bool {
        matches!(self.scheme, Scheme::WebdavPlain | Scheme::WebdavTls)
    }

    pub(super) fn patience(&self) -> Duration {
        self.settings.patience.unwrap_or(Duration::from_secs(30))
    }

    pub(super) fn retry(&self) -> RetryPolicy {
        let (attempts, first_wait, longest_wait) = (6, Duration::from_millis(200), Duration::from_secs(10));
        self.settings.retry.unwrap_or(RetryPolicy { attempts, first_wait, longest_wait })
    }

    /// The server of a bucket: its endpoint, or AWS.
    pub fn s3_server(&self) -> &str {
        self.settings.endpoint.as_deref().unwrap_or("AWS")
    }

    /// Whether an access key is given for it; otherwise that of the environment is taken.
    pub fn has_own_credentials(&self) -> bool {
        self.settings.access_key_id.is_some()
    }
}

fn merge<T: PartialEq>(mine: &mut Option<T>, other: Option<T>) -> bool {
    let same = mine.is_none() || other.is_none() || *mine == other;
    if let Some(other) = other {
        *mine = Some(other);
    }
    same
}

fn usage(message: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Usage, "use the archive", message)
}

impl std::fmt::Display for RemotePlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = match self.scheme {
            Scheme::S3 => "s3",
            Scheme::Sftp => "sftp",
            Scheme::WebdavPlain => "webdav",
            Scheme::WebdavTls => "webdavs",
        };
        write!(f, "{scheme}://{}", self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        if self.path.is_empty() { Ok(()) } else { write!(f, "/{}", self.path) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> RemotePlace {
        RemotePlace::parse(text).unwrap().unwrap()
    }

    #[test]
    fn a_url_names_bucket_prefix_and_options() {
        let p = place("s3://my_bucket/a%20b/c/?endpoint=http://127.0.0.1:9000&region=eu&path_style=false");
        assert_eq!((&*p.host, &*p.path), ("my_bucket", "a b/c"));
        assert_eq!(p.settings.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
        assert_eq!((p.settings.region.as_deref(), p.settings.path_style), (Some("eu"), Some(false)));
        assert_eq!(p.to_string(), "s3://my_bucket/a b/c");
        let p = place("sftp://me@host:2222/~/backups");
        assert_eq!((p.user.as_deref(), p.port, &*p.path), (Some("me"), Some(2222), "~/backups"));
        assert!(RemotePlace::parse("/srv/b").unwrap().is_none());
        assert!(RemotePlace::parse("ftp://h/b").unwrap().is_none());
    }

    #[test]
    fn the_end_of_a_url_may_name_one_file() {
        let mut p = place("s3://b/dir/x.tar.zst");
        assert_eq!(p.split_file(|n| n.ends_with(".tar.zst")).as_deref(), Some("x.tar.zst"));
        assert_eq!(p.path, "dir");
        assert_eq!(p.split_file(|n| n.ends_with(".tar.zst")), None);
    }

    #[test]
    fn a_secret_or_an_unknown_option_in_a_url_is_an_error_that_does_not_repeat_it() {
        for text in ["s3://key:hunter2@b/p", "webdav://u:hunter2@h/", "s3://b/p?secret_access_key=x"] {
            let e = RemotePlace::parse(text).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Usage, "{text}");
            assert!(!e.to_string().contains("hunter2"), "{e}");
        }
        for text in ["s3:///p", "s3://b:9000/p", "sftp://h/a/../b?x=1", "webdav://h/p?region=x"] {
            assert_eq!(RemotePlace::parse(text).unwrap_err().kind(), ErrorKind::Usage, "{text}");
        }
    }

    #[test]
    fn two_values_of_one_setting_are_an_error() {
        let more = |region: &str| RemoteSettings { region: Some(region.into()), ..Default::default() };
        assert!(place("s3://b?region=eu").configured(more("us")).is_err());
        assert!(place("s3://b?region=eu").configured(more("eu")).is_ok());
        assert!(place("sftp://h/b").configured(more("eu")).is_err());
    }
}
