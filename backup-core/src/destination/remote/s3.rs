//! S3: the server, the credentials, the operator of a bucket.

mod uploads;

use super::{
    calls::{Calls, PATH},
    failure,
    pace::Pace,
    place::RemotePlace,
    transport::Transport,
    uploads::Uploads,
};
use crate::{Error, ErrorKind, Result};
use opendal::{HttpTransporter, Operator, services};
use percent_encoding::utf8_percent_encode;
use reqsign_aws_v4::{Credential, DefaultCredentialProvider, RequestSigner, StaticCredentialProvider};
use reqsign_core::{Context, OsEnv, ProvideCredentialChain, Signer};
use reqsign_file_read_tokio::TokioFileRead;
use std::sync::Arc;
use uploads::Multipart;

/// Where requests go.
struct Server {
    endpoint: String,
    region: String,
    path_style: bool,
    /// Whether it is AWS itself: only there a machine has credentials by where it runs.
    aws: bool,
}

impl Server {
    fn of(place: &RemotePlace) -> Result<Self> {
        let wrong = |message: &str| Error::new(ErrorKind::Usage, "use the archive", message).on(place);
        let settings = &place.settings;
        let from_environment = || {
            let named = std::env::var("AWS_REGION").or_else(|_| std::env::var("AWS_DEFAULT_REGION"));
            named.ok().filter(|region| !region.is_empty())
        };
        let region = settings.region.clone().or_else(from_environment);
        let Some(endpoint) = place.endpoint()? else {
            let region = region.ok_or_else(|| {
                wrong("it has no region").hint(
                    "`region` or ?region=, or AWS_REGION; a server of one's own is named by `endpoint` or ?endpoint=",
                )
            })?;
            // TLS knows no host names with dots in the bucket's part.
            let path_style = settings.path_style.unwrap_or(place.host.contains('.'));
            let endpoint = format!("https://s3.{region}.amazonaws.com");
            return Ok(Server { endpoint, region, path_style, aws: true });
        };
        let region = region.unwrap_or_else(|| "us-east-1".to_owned());
        Ok(Server { endpoint, region, path_style: settings.path_style.unwrap_or(true), aws: false })
    }

    fn bucket_url(&self, bucket: &str) -> String {
        match self.path_style {
            true => format!("{}/{}", self.endpoint, utf8_percent_encode(bucket, PATH)),
            false => self.endpoint.replacen("://", &format!("://{bucket}."), 1),
        }
    }
}

fn credentials(place: &RemotePlace, aws: bool) -> Result<ProvideCredentialChain<Credential>> {
    let chain = ProvideCredentialChain::new();
    let settings = &place.settings;
    match (&settings.access_key_id, &settings.secret_access_key) {
        (Some(key), Some(secret)) => Ok(chain.push(StaticCredentialProvider::new(key, secret.expose()))),
        (None, None) => {
            let standard = DefaultCredentialProvider::builder();
            // Elsewhere nobody answers at the address of the role of a machine: it would only be waited for.
            Ok(chain.push(if aws { standard.build() } else { standard.no_imds().build() }))
        }
        _ => {
            let message = "of access key and secret only one is given";
            Err(Error::new(ErrorKind::Usage, "use the archive", message).on(place))
        }
    }
}

/// The operator of the bucket, without retries, and the calls that it does not have.
pub(super) fn open(place: &RemotePlace, pace: Option<Pace>) -> Result<(Operator, Arc<dyn Uploads>)> {
    let server = Server::of(place)?;
    let tls = server.endpoint.starts_with("https:");
    let transport = Transport::new(tls, place.settings.ca_file.as_deref(), place.patience(), pace)?;
    let http = HttpTransporter::new(transport.clone());
    let mut builder = services::S3::default()
        .bucket(&place.host)
        .endpoint(&server.endpoint)
        .region(&server.region)
        .disable_config_load()
        .checksum_algorithm("crc32c")
        .credential_provider_chain(credentials(place, server.aws)?);
    if !server.path_style {
        builder = builder.enable_virtual_host_style();
    }
    let operator = Operator::new(builder).map_err(|e| failure::error("use the archive", place, &e))?;
    let context = Context::new().with_file_read(TokioFileRead).with_http_send(http.clone()).with_env(OsEnv);
    let signer =
        Signer::new(context, credentials(place, server.aws)?, RequestSigner::new("s3", &server.region));
    let operator = operator.with_context(opendal::OperationContext::new().with_http_transport(http));
    let calls = Calls { transport, signer, retry: place.retry(), patience: place.patience() };
    Ok((operator, Arc::new(Multipart { calls, url: server.bucket_url(&place.host) })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str) -> Result<Server> {
        Server::of(&RemotePlace::parse(url).unwrap().unwrap())
    }

    #[test]
    fn a_bucket_is_in_the_path_at_ones_own_server_and_in_the_host_name_at_aws() {
        let own = server("s3://b/p?endpoint=http://127.0.0.1:9000/").unwrap();
        assert_eq!((own.bucket_url("b"), &*own.region), ("http://127.0.0.1:9000/b".into(), "us-east-1"));
        let aws = server("s3://b/p?region=eu-west-1").unwrap();
        assert_eq!(aws.bucket_url("b"), "https://b.s3.eu-west-1.amazonaws.com");
        let dotted = server("s3://b.c/p?region=eu-west-1").unwrap();
        assert_eq!(dotted.bucket_url("b.c"), "https://s3.eu-west-1.amazonaws.com/b.c");
    }

    #[test]
    fn an_endpoint_without_scheme_or_with_a_secret_is_refused() {
        assert!(server("s3://b/p?endpoint=127.0.0.1:9000").is_err());
        assert!(server("s3://b/p?endpoint=http://u:p@h").is_err());
    }
}
