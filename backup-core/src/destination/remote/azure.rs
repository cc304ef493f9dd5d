//! Azure Blob Storage: the account, its credentials, the operator of a container.

mod uploads;

use super::{
    calls::{Calls, PATH},
    failure,
    pace::Pace,
    place::RemotePlace,
    transport::Transport,
    uploads::Uploads,
};
use crate::{Error, ErrorKind, Result, Secret};
use base64::{Engine, prelude::BASE64_STANDARD};
use opendal::{HttpTransporter, Operator, services};
use percent_encoding::utf8_percent_encode;
use reqsign_azure_storage::{Credential, RequestSigner, StaticCredentialProvider};
use reqsign_core::{Context, ProvideCredentialChain, Signer};
use std::sync::Arc;
use uploads::Blocks;

/// The variables of the environment, those that are empty left out.
type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where requests go.
struct Account {
    /// Not needed with a token and an endpoint.
    name: Option<String>,
    endpoint: String,
}

impl Account {
    fn of(place: &RemotePlace, var: Variables<'_>) -> Result<Self> {
        let wrong = |message: &str| Error::new(ErrorKind::Usage, "use the archive", message).on(place);
        let endpoint = place.endpoint()?;
        let in_endpoint = || endpoint.as_deref().and_then(account_in).map(str::to_owned);
        let name =
            place.settings.account.clone().or_else(in_endpoint).or_else(|| var("AZURE_STORAGE_ACCOUNT"));
        // It becomes a part of the host name, to which secrets are sent.
        if name.as_deref().is_some_and(|name| !is_account(name)) {
            return Err(wrong("an account has a name of letters, digits and dashes"));
        }
        let endpoint = match (endpoint, &name) {
            (Some(endpoint), _) => endpoint,
            (None, Some(name)) => format!("https://{name}.blob.core.windows.net"),
            (None, None) => {
                let hint = "`account` or ?account=, or AZURE_STORAGE_ACCOUNT";
                return Err(wrong("it names no account").hint(hint));
            }
        };
        Ok(Account { name, endpoint })
    }
}

fn is_account(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// The account that an endpoint names: in its host, or as its path, as emulators have it.
fn account_in(endpoint: &str) -> Option<&str> {
    let (_, rest) = endpoint.split_once("://")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    match host.split_once(".blob.") {
        Some((account, _)) => Some(account),
        None => Some(path).filter(|path| is_account(path)),
    }
}

/// The key of the account or a token, of the archive itself or else of the environment; `None` if there is neither.
fn credential(
    place: &RemotePlace,
    account: Option<&str>,
    var: Variables<'_>,
) -> Result<Option<StaticCredentialProvider>> {
    let wrong = |message: &str| Error::new(ErrorKind::Usage, "use the archive", message).on(place);
    let from_environment = |name: &str| var(name).map(Secret::new);
    let (key, token) = match (place.settings.account_key.clone(), place.settings.sas_token.clone()) {
        (None, None) => match from_environment("AZURE_STORAGE_KEY") {
            None => (None, from_environment("AZURE_STORAGE_SAS_TOKEN")),
            key => (key, None),
        },
        own => own,
    };
    match (key, token) {
        (Some(_), Some(_)) => Err(wrong("of account key and SAS token one is given, not both")),
        (Some(key), None) => {
            let account = account.ok_or_else(|| {
                wrong("an account key is given and no account")
                    .hint("`account`, ?account= or AZURE_STORAGE_ACCOUNT")
            })?;
            if BASE64_STANDARD.decode(key.expose()).is_err() {
                return Err(wrong("the account key is none: it is no base64"));
            }
            Ok(Some(StaticCredentialProvider::new_shared_key(account, key.expose())))
        }
        (None, Some(token)) => {
            let token = token.expose().trim().trim_start_matches('?');
            let is_one = token.split('&').any(|option| option.starts_with("sig="))
                && token.bytes().all(|b| b.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(&b));
            match is_one {
                true => Ok(Some(StaticCredentialProvider::new_sas_token(token))),
                false => Err(wrong("the SAS token is none: it has no `sig=`, or is not encoded as in a URL")),
            }
        }
        (None, None) => Ok(None),
    }
}

/// The operator of the container, without retries, and the calls that it does not have.
pub(super) fn open(place: &RemotePlace, pace: Option<Pace>) -> Result<(Operator, Arc<dyn Uploads>)> {
    let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let account = Account::of(place, &var)?;
    let credential = credential(place, account.name.as_deref(), &var)?;
    // Without one the first call says that there is none.
    let credentials = || {
        let none = ProvideCredentialChain::<Credential>::new();
        credential.iter().fold(none, |chain, credential| chain.push(credential.clone()))
    };
    let tls = account.endpoint.starts_with("https:");
    let transport = Transport::new(tls, place.settings.ca_file.as_deref(), place.patience(), pace)?;
    let http = HttpTransporter::new(transport.clone());
    let builder = services::Azblob::default()
        .container(&place.host)
        .endpoint(&account.endpoint)
        .credential_provider_chain(credentials());
    let operator = Operator::new(builder).map_err(|e| failure::error("use the archive", place, &e))?;
    let operator = operator.with_context(opendal::OperationContext::new().with_http_transport(http));
    let calls = Calls {
        transport,
        signer: Signer::new(Context::new(), credentials(), RequestSigner::new()),
        retry: place.retry(),
        patience: place.patience(),
    };
    let url = format!("{}/{}", account.endpoint, utf8_percent_encode(&place.host, PATH));
    Ok((operator, Arc::new(Blocks { calls, url })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::RemoteSettings;

    fn place(url: &str) -> RemotePlace {
        RemotePlace::parse(url).unwrap().unwrap()
    }

    fn account(url: &str, variable: Option<&str>) -> Result<(Option<String>, String)> {
        let account = Account::of(&place(url), &|name| {
            (name == "AZURE_STORAGE_ACCOUNT").then(|| variable.map(str::to_owned)).flatten()
        })?;
        Ok((account.name, account.endpoint))
    }

    #[test]
    fn the_account_is_named_by_the_url_by_the_endpoint_or_by_the_environment() {
        let cloud = |name: &str| (Some(name.to_owned()), format!("https://{name}.blob.core.windows.net"));
        assert_eq!(account("az://c/p?account=one", Some("other")).unwrap(), cloud("one"));
        assert_eq!(account("az://c/p", Some("other")).unwrap(), cloud("other"));
        for (endpoint, name) in [
            ("http://127.0.0.1:10000/devstoreaccount1/", Some("devstoreaccount1")),
            ("https://one.blob.core.chinacloudapi.cn", Some("one")),
            ("https://blobs.example.org", None),
        ] {
            let url = format!("az://c/p?endpoint={endpoint}");
            let endpoint = endpoint.trim_end_matches('/').to_owned();
            assert_eq!(account(&url, None).unwrap(), (name.map(str::to_owned), endpoint));
        }
        assert_eq!(account("az://c/p", None).unwrap_err().kind(), ErrorKind::Usage);
        for wrong in
            ["az://c/p?account=x.example.org/", "az://c/p?endpoint=x", "az://c/p?endpoint=http://h?sig=x"]
        {
            assert_eq!(account(wrong, None).unwrap_err().kind(), ErrorKind::Usage, "{wrong}");
        }
    }

    #[test]
    fn one_credential_is_taken_and_what_cannot_be_one_is_refused_unseen() {
        let given = |key: Option<&str>, token: Option<&str>, variables: &[(&str, &str)]| {
            let settings = RemoteSettings {
                account_key: key.map(Secret::new),
                sas_token: token.map(Secret::new),
                ..RemoteSettings::default()
            };
            let place = place("az://c/p?account=one").configured(settings).unwrap();
            let var = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
            credential(&place, Some("one"), &var).map(|c| c.map(|c| format!("{c:?}")))
        };
        let kind = |given: Result<Option<String>>| match given.unwrap().unwrap_or_default() {
            c if c.contains("SharedKey") => "key",
            c if c.contains("SasToken") => "token",
            _ => "none",
        };
        let both = [("AZURE_STORAGE_KEY", "a2V5"), ("AZURE_STORAGE_SAS_TOKEN", "sv=1&sig=hidden")];
        assert_eq!(kind(given(Some("a2V5"), None, &both[1..])), "key");
        assert_eq!(kind(given(None, Some("?sv=1&sig=hidden%3D\n"), &both[..1])), "token");
        assert_eq!(kind(given(None, None, &both)), "key");
        assert_eq!(kind(given(None, None, &both[1..])), "token");
        assert_eq!(kind(given(None, None, &[])), "none");
        for (key, token) in [
            (Some("a2V5"), Some("sig=hidden")),
            (Some("hidden!"), None),
            (None, Some("hidden")),
            (None, Some("sv=1&sig=hidden#")),
        ] {
            let e = given(key, token, &[]).unwrap_err();
            assert!(e.kind() == ErrorKind::Usage && !e.to_string().contains("hidden"), "{e}");
        }
    }
}
