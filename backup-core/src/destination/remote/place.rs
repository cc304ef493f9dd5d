//! A remote place as it is named: `s3://bucket/prefix?endpoint=…`.

use super::settings::RemoteSettings;
use crate::{Error, ErrorKind, Result, without_secrets};
use reqwest::Url;

/// Kinds of servers, by the scheme of their URLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    S3,
    Azure,
    Sftp,
    WebdavPlain,
    WebdavTls,
}

/// Where and how a remote place is reached: what its URL says, completed by what is configured.
#[derive(Clone, Debug)]
pub struct RemotePlace {
    pub(super) scheme: Scheme,
    /// The bucket, the container, or the host.
    pub(super) host: String,
    pub(super) port: Option<u16>,
    pub(super) user: Option<String>,
    /// Without slashes at its ends; of SFTP `~/` before a path is the home of the user.
    pub(super) path: String,
    pub(super) settings: RemoteSettings,
}

impl Scheme {
    /// What its URLs name first.
    fn begins_with(self) -> &'static str {
        match self {
            Scheme::S3 => "bucket",
            Scheme::Azure => "container",
            _ => "host",
        }
    }

    fn keeps_objects(self) -> bool {
        matches!(self, Scheme::S3 | Scheme::Azure)
    }
}

impl RemotePlace {
    /// Reads a URL; `None` if its scheme is none of a remote place. Unknown options and secrets in it are errors.
    pub fn parse(text: &str) -> Result<Option<Self>> {
        let scheme = match text.split_once("://").map(|(scheme, _)| scheme) {
            Some("s3") => Scheme::S3,
            Some("az") => Scheme::Azure,
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
        if url.password().is_some() || (scheme.keeps_objects() && !url.username().is_empty()) {
            let hint = "secrets come from the environment or the configuration: `backup config example`";
            return Err(wrong("a secret stands in the URL, where others can see it".into()).hint(hint));
        }
        if url.fragment().is_some() {
            return Err(wrong("a `#` in it must be written %23".into()));
        }
        let host = url.host_str().filter(|h| !h.is_empty());
        let what = scheme.begins_with();
        let host = decode(host.ok_or_else(|| wrong(format!("it names no {what}")))?)?;
        if scheme.keeps_objects() && url.port().is_some() {
            let name = if scheme == Scheme::S3 { "s3://BUCKET" } else { "az://CONTAINER" };
            let hint = format!("{name}/PREFIX?endpoint=http://{host}:PORT");
            return Err(wrong(format!("a {what} has no port")).hint(hint));
        }
        let mut settings = RemoteSettings::default();
        for (key, value) in url.query_pairs() {
            let value = value.into_owned();
            match (scheme, &*key) {
                (Scheme::S3 | Scheme::Azure, "endpoint") => settings.endpoint = Some(value),
                (Scheme::Azure, "account") => settings.account = Some(value),
                (Scheme::S3, "region") => settings.region = Some(value),
                (Scheme::S3, "path_style") => {
                    settings.path_style =
                        Some(value.parse().map_err(|_| wrong("path_style is true or false".into()))?);
                }
                (Scheme::S3 | Scheme::Azure, _) => {
                    let known = if scheme == Scheme::S3 {
                        "endpoint, region, path_style"
                    } else {
                        "account, endpoint"
                    };
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

    /// The name of the one object, if the URL ends in one that `is_file` knows; the place becomes the folder that it is in.
    pub(crate) fn split_file(&mut self, is_file: impl Fn(&str) -> bool) -> Option<String> {
        let (folder, name) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let name = Some(name).filter(|name| is_file(name))?.to_owned();
        self.path = folder.to_owned();
        Some(name)
    }

    /// Whether it is a bucket of S3.
    pub fn is_s3(&self) -> bool {
        self.scheme == Scheme::S3
    }

    /// Whether it is a container of Azure.
    pub fn is_azure(&self) -> bool {
        self.scheme == Scheme::Azure
    }

    /// Whether its user has a password.
    pub fn has_password(&self) -> bool {
        matches!(self.scheme, Scheme::WebdavPlain | Scheme::WebdavTls)
    }
}

pub(super) fn usage(message: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Usage, "use the archive", message)
}

impl std::fmt::Display for RemotePlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = match self.scheme {
            Scheme::S3 => "s3",
            Scheme::Azure => "az",
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
        let p = place("az://my-container/p/?account=one&endpoint=https://one.blob.core.windows.net");
        assert_eq!((&*p.host, p.settings.account.as_deref()), ("my-container", Some("one")));
        assert_eq!(p.to_string(), "az://my-container/p");
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
        for text in [
            "s3://key:hunter2@b/p",
            "webdav://u:hunter2@h/",
            "s3://b/p?secret_access_key=x",
            "az://hunter2@c/p",
            "az://c/p?account=one&sv=1&sig=hunter2",
            "az://c/p?account_key=hunter2",
        ] {
            let e = RemotePlace::parse(text).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Usage, "{text}");
            assert!(!e.to_string().contains("hunter2"), "{e}");
        }
        for text in [
            "s3:///p",
            "s3://b:9000/p",
            "az://c:10000/p",
            "az://c?region=x",
            "sftp://h/a/../b?x=1",
            "webdav://h/p?region=x",
        ] {
            assert_eq!(RemotePlace::parse(text).unwrap_err().kind(), ErrorKind::Usage, "{text}");
        }
    }
}
