//! S3: the operator, and the two calls that OpenDAL does not have: which uploads of an object were begun, and giving one up.

use super::{failure, place::RemotePlace, transport::Transport};
use crate::{Error, ErrorKind, Result, RetryPolicy};
use http::{Method, Request, StatusCode};
use opendal::{Buffer, HttpTransporter, Operator, services};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqsign_aws_v4::{Credential, DefaultCredentialProvider, RequestSigner, StaticCredentialProvider};
use reqsign_core::{Context, OsEnv, ProvideCredentialChain, Signer};
use reqsign_file_read_tokio::TokioFileRead;
use serde::Deserialize;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What stays as it is in a query.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same in a path.
const PATH: &AsciiSet = &QUERY.remove(b'/');

/// The calls that OpenDAL does not have.
#[derive(Clone)]
pub(super) struct Uploads {
    transport: HttpTransporter,
    signer: Signer<Credential>,
    /// The URL of the bucket, without a slash at its end.
    bucket: String,
    retry: RetryPolicy,
    patience: Duration,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Listing {
    #[serde(rename = "Upload")]
    uploads: Vec<Begun>,
    is_truncated: bool,
    next_key_marker: String,
    next_upload_id_marker: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Begun {
    key: String,
    upload_id: String,
}

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
        let Some(endpoint) = &settings.endpoint else {
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
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            return Err(wrong("the endpoint must begin with http:// or https://"));
        }
        if endpoint.contains('@') {
            return Err(wrong("the endpoint must not hold a user or password"));
        }
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
pub(super) fn open(place: &RemotePlace) -> Result<(Operator, Uploads)> {
    let server = Server::of(place)?;
    let transport =
        HttpTransporter::new(Transport::new(server.endpoint.starts_with("https:"), place.patience())?);
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
    let context =
        Context::new().with_file_read(TokioFileRead).with_http_send(transport.clone()).with_env(OsEnv);
    let signer =
        Signer::new(context, credentials(place, server.aws)?, RequestSigner::new("s3", &server.region));
    let bucket = server.bucket_url(&place.host);
    let operator =
        operator.with_context(opendal::OperationContext::new().with_http_transport(transport.clone()));
    Ok((operator, Uploads { transport, signer, bucket, retry: place.retry(), patience: place.patience() }))
}

impl Uploads {
    /// Gives up every upload of exactly this key. One that is gone meanwhile is no error.
    pub(super) async fn give_up(&self, key: &str) -> Result<()> {
        let (mut key_marker, mut id_marker) = (String::new(), String::new());
        loop {
            let mut query = format!("uploads=&prefix={}", utf8_percent_encode(key, QUERY));
            if !key_marker.is_empty() {
                query.push_str(&format!("&key-marker={}", utf8_percent_encode(&key_marker, QUERY)));
                query.push_str(&format!("&upload-id-marker={}", utf8_percent_encode(&id_marker, QUERY)));
            }
            let url = format!("{}/?{query}", self.bucket);
            let (status, body) = self.call(Method::GET, &url, "list the uploads", key).await?;
            let listing: Listing = match status {
                StatusCode::OK => quick_xml::de::from_reader(&body[..]).map_err(|e| {
                    Error::new(
                        ErrorKind::Destination,
                        "list the uploads",
                        format!("the answer is wrong: {e}"),
                    )
                    .on(key)
                })?,
                _ => return Err(refused("list the uploads", key, status, &body)),
            };
            // Of two pages in a row, the second begins after what is given up here.
            for upload in listing.uploads.iter().filter(|u| u.key == key) {
                self.abort(key, &upload.upload_id).await?;
            }
            if !listing.is_truncated || listing.next_key_marker.is_empty() {
                return Ok(());
            }
            (key_marker, id_marker) = (listing.next_key_marker, listing.next_upload_id_marker);
        }
    }

    async fn abort(&self, key: &str, id: &str) -> Result<()> {
        let path = utf8_percent_encode(key, PATH);
        let url = format!("{}/{path}?uploadId={}", self.bucket, utf8_percent_encode(id, QUERY));
        let (status, body) = self.call(Method::DELETE, &url, "give up the upload", key).await?;
        match status {
            s if s.is_success() || s == StatusCode::NOT_FOUND => Ok(()),
            _ => Err(refused("give up the upload", key, status, &body)),
        }
    }

    /// Both calls can be repeated.
    async fn call(
        &self,
        method: Method,
        url: &str,
        operation: &'static str,
        key: &str,
    ) -> Result<(StatusCode, bytes::Bytes)> {
        let never = CancellationToken::new();
        let call = || async {
            let request = Request::builder().method(method.clone()).uri(url).body(Buffer::new());
            let request = request.map_err(|e| Error::new(ErrorKind::Usage, operation, e).on(key))?;
            let (mut parts, body) = request.into_parts();
            let signing = tokio::time::timeout(self.patience, self.signer.sign(&mut parts, None)).await;
            signing
                .map_err(|_| Error::new(ErrorKind::Destination, operation, "no credentials came in time"))?
                .map_err(|e| Error::new(ErrorKind::Destination, operation, e).on(key))?;
            parts.headers.remove(http::header::HOST);
            let answer = self.transport.send(Request::from_parts(parts, body)).await;
            let answer = answer.map_err(|e| failure::error(operation, key, &e))?;
            let (status, body) = (answer.status(), answer.into_body().to_bytes());
            if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
                return Err(refused(operation, key, status, &body).retry(true));
            }
            Ok((status, body))
        };
        self.retry.run(&never, call).await
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Complaint {
    code: String,
    message: String,
}

fn refused(operation: &'static str, key: &str, status: StatusCode, body: &[u8]) -> Error {
    let said: Complaint = quick_xml::de::from_reader(body).unwrap_or_default();
    let text = match said.code.as_str() {
        "" => status.to_string(),
        code => format!("{code}: {}", said.message),
    };
    Error::new(ErrorKind::Destination, operation, text).on(key)
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

    #[test]
    fn a_page_of_uploads_is_read() {
        let page = "<ListMultipartUploadsResult><IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker>\
                    <NextUploadIdMarker>i</NextUploadIdMarker><Upload><Key>a</Key><UploadId>1</UploadId></Upload>\
                    <Upload><Key>a</Key><UploadId>2</UploadId><Initiator><ID>x</ID></Initiator></Upload>\
                    </ListMultipartUploadsResult>";
        let listing: Listing = quick_xml::de::from_reader(page.as_bytes()).unwrap();
        assert!(
            listing.is_truncated && listing.next_key_marker == "k" && listing.next_upload_id_marker == "i"
        );
        assert_eq!(listing.uploads.iter().map(|u| &*u.upload_id).collect::<Vec<_>>(), ["1", "2"]);
    }
}
