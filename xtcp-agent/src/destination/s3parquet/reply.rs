//! What a server's refusal means, and what to do about it.

use super::address::Place;
use crate::tls;

/// Where instances ask for their role; nobody else has that address.
const INSTANCE_METADATA: &str = "http://169.254.169.254";

/// A refusal in words.
pub(super) struct Reply {
    pub(super) text: String,
    /// The same bytes will be refused again, whatever is mended.
    pub(super) hopeless: bool,
}

/// Reads a server's error document, or what kept us from getting one.
pub(super) fn explain(error: &object_store::Error, place: &Place) -> Reply {
    let whole = tls::explain(error);
    let mut hopeless = false;
    let Some(code) = element(&whole, "Code") else {
        let text = if whole.contains(INSTANCE_METADATA) {
            "there are no credentials: give access-key and secret-key-file, set AWS_ACCESS_KEY_ID and \
             AWS_SECRET_ACCESS_KEY, or give the instance a role"
                .to_owned()
        } else if whole.contains("without LOCATION") {
            format!("the bucket is not in region {}: name its own with region=", place.region_name())
        } else {
            whole
        };
        return Reply { text, hopeless };
    };
    let bucket = &place.bucket;
    let fix = match code {
        "NoSuchBucket" => format!("make bucket {bucket}, or mend its name in the address"),
        "InvalidAccessKeyId" | "NotSignedUp" => "there is no such access key: mend access-key".to_owned(),
        "SignatureDoesNotMatch" => "the secret of the access key is another one: mend secret-key".to_owned(),
        "InvalidToken" | "ExpiredToken" => "get a new session token".to_owned(),
        "AccessDenied" | "AllAccessDisabled" => {
            format!("allow the access key s3:PutObject and s3:AbortMultipartUpload in {bucket}")
        }
        "AuthorizationHeaderMalformed"
        | "PermanentRedirect"
        | "InvalidRegion"
        | "IllegalLocationConstraintException" => {
            let own = element(&whole, "Region").map_or_else(String::new, |region| format!(" ({region})"));
            format!("the bucket is not in region {}: name its own{own} with region=", place.region_name())
        }
        "RequestTimeTooSkewed" => "set this host's clock".to_owned(),
        "SlowDown" | "ServiceUnavailable" | "RequestTimeout" | "InternalError" => {
            "the server is busy or broken: it is tried again".to_owned()
        }
        "XMinioStorageFull" | "QuotaExceeded" | "XMinioAdminBucketQuotaExceeded" => {
            "the server has no room left: free some".to_owned()
        }
        "EntityTooLarge" | "KeyTooLongError" | "InvalidDigest" => {
            hopeless = true;
            "this batch is given up".to_owned()
        }
        _ => "ask whoever runs the server".to_owned(),
    };
    let said = element(&whole, "Message").unwrap_or_default();
    Reply { text: format!("refused ({code}: {said}): {fix}"), hopeless }
}

/// Text of the first such element.
fn element<'a>(document: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = document.split_once(&format!("<{name}>"))?;
    let (text, _) = after.split_once(&format!("</{name}>"))?;
    Some(text)
}
