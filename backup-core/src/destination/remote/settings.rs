//! What a URL does not say of a remote place, and which kind of server knows what of it.

use super::place::{RemotePlace, Scheme, usage};
use crate::{Result, RetryPolicy, Secret};
use std::{path::PathBuf, time::Duration};

/// What a URL does not say of a remote place, or says behind its `?`. What is `None` has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteSettings {
    /// S3 and Azure: URL of the server, of Azure with the account in it; that of AWS, or of the account at Azure, if not given.
    pub endpoint: Option<String>,
    /// S3: the region; `us-east-1` with an endpoint of one's own, else that of the environment.
    pub region: Option<String>,
    /// S3: the bucket in the path of requests instead of the host name; true with an endpoint of one's own.
    pub path_style: Option<bool>,
    /// S3: the access key. If it is not given, the standard chain of AWS is asked: environment, profile, role.
    pub access_key_id: Option<String>,
    /// S3: the secret of the access key.
    pub secret_access_key: Option<Secret>,
    /// Azure: the storage account; that in the endpoint, else that of the environment, if not given.
    pub account: Option<String>,
    /// Azure: a key of the account. With neither key nor token those of the environment are taken.
    pub account_key: Option<Secret>,
    /// Azure: a token (SAS) that allows to read, write, delete and list, instead of a key.
    pub sas_token: Option<Secret>,
    /// WebDAV: the password of the user in the URL.
    pub password: Option<Secret>,
    /// S3, Azure and WebDAV: a file of certificates (PEM) that are trusted instead of those of this system.
    pub ca_file: Option<PathBuf>,
    /// Bytes a second that may pass, in both directions together; 10 KiB at least.
    pub limit_rate: Option<u64>,
    /// A connection on which nothing moves for so long is given up; 30 seconds.
    pub patience: Option<Duration>,
    /// How calls are repeated whose failure may pass; six calls, within about six seconds.
    pub retry: Option<RetryPolicy>,
}

impl RemotePlace {
    /// Completes the settings; one that is given here and in the URL with another value is an error.
    pub fn configured(mut self, more: RemoteSettings) -> Result<Self> {
        let (s3, azure, dav) = (self.is_s3(), self.is_azure(), self.has_password());
        let mut foreign = None;
        for (given, known, name) in [
            (more.endpoint.is_some(), s3 || azure, "endpoint"),
            (more.region.is_some(), s3, "region"),
            (more.path_style.is_some(), s3, "path_style"),
            (more.access_key_id.is_some(), s3, "access_key_id"),
            (more.secret_access_key.is_some(), s3, "secret_access_key"),
            (more.account.is_some(), azure, "account"),
            (more.account_key.is_some(), azure, "account_key"),
            (more.sas_token.is_some(), azure, "sas_token"),
            (more.password.is_some(), dav, "password"),
            (more.ca_file.is_some(), s3 || azure || dav, "ca_file"),
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
            & merge(&mut mine.path_style, more.path_style)
            & merge(&mut mine.account, more.account);
        mine.access_key_id = more.access_key_id.or(mine.access_key_id.take());
        mine.secret_access_key = more.secret_access_key.or(mine.secret_access_key.take());
        mine.account_key = more.account_key.or(mine.account_key.take());
        mine.sas_token = more.sas_token.or(mine.sas_token.take());
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

    /// The endpoint as it is used, if one is given.
    pub(super) fn endpoint(&self) -> Result<Option<String>> {
        let Some(endpoint) = &self.settings.endpoint else { return Ok(None) };
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            return Err(usage("the endpoint must begin with http:// or https://").on(self));
        }
        if endpoint.contains(['@', '?', '#']) {
            return Err(usage("the endpoint must hold neither a user or password nor options").on(self));
        }
        Ok(Some(endpoint))
    }

    pub(super) fn patience(&self) -> Duration {
        self.settings.patience.unwrap_or(Duration::from_secs(30))
    }

    pub(super) fn retry(&self) -> RetryPolicy {
        let (attempts, first_wait, longest_wait) = (6, Duration::from_millis(200), Duration::from_secs(10));
        self.settings.retry.unwrap_or(RetryPolicy { attempts, first_wait, longest_wait })
    }

    /// Whether credentials are given for it; otherwise, if it is a bucket or container, those of the environment are taken.
    pub fn has_own_credentials(&self) -> bool {
        let settings = &self.settings;
        settings.access_key_id.is_some() || settings.account_key.is_some() || settings.sas_token.is_some()
    }

    /// The server that credentials of the environment would be sent to: endpoint, or account, or AWS; `None` if it takes none.
    pub fn server_of_environment(&self) -> Option<(&'static str, &str)> {
        let settings = &self.settings;
        let endpoint = settings.endpoint.as_deref();
        match self.scheme {
            Scheme::S3 => Some(("S3", endpoint.unwrap_or("AWS"))),
            Scheme::Azure => Some(("Azure", endpoint.or(settings.account.as_deref()).unwrap_or_default())),
            _ => None,
        }
    }
}

fn merge<T: PartialEq>(mine: &mut Option<T>, other: Option<T>) -> bool {
    let same = mine.is_none() || other.is_none() || *mine == other;
    if let Some(other) = other {
        *mine = Some(other);
    }
    same
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> RemotePlace {
        RemotePlace::parse(text).unwrap().unwrap()
    }

    #[test]
    fn two_values_of_one_setting_are_an_error() {
        let more = |region: &str| RemoteSettings { region: Some(region.into()), ..Default::default() };
        assert!(place("s3://b?region=eu").configured(more("us")).is_err());
        assert!(place("s3://b?region=eu").configured(more("eu")).is_ok());
        let more = |account: &str| RemoteSettings { account: Some(account.into()), ..Default::default() };
        assert!(place("az://c?account=one").configured(more("two")).is_err());
        assert!(place("az://c?account=one").configured(more("one")).is_ok());
    }

    #[test]
    fn what_another_kind_of_server_knows_is_an_error() {
        let region = || RemoteSettings { region: Some("eu".into()), ..Default::default() };
        let token = || RemoteSettings { sas_token: Some(Secret::new("sig=x")), ..Default::default() };
        for (place, more) in [
            (place("sftp://h/b"), region()),
            (place("az://c"), region()),
            (place("s3://b"), token()),
            (place("webdavs://h/b"), token()),
        ] {
            assert!(place.clone().configured(more).is_err(), "{place}");
        }
        assert!(place("az://c").configured(token()).unwrap().has_own_credentials());
    }
}
