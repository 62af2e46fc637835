//! What a credentials file for S3 says.

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};

use super::super::object::settings;

const KNOWN: &[&str] = &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "REGION"];

/// Sets what the text of a credentials file says. Errors name the line, never its content.
pub(super) fn apply(mut builder: AmazonS3Builder, text: &str) -> Result<AmazonS3Builder, String> {
    let (mut id, mut secret) = (false, false);
    for (name, value) in settings::parse(text, KNOWN)? {
        let key = match name {
            "AWS_ACCESS_KEY_ID" => {
                id = true;
                AmazonS3ConfigKey::AccessKeyId
            }
            "AWS_SECRET_ACCESS_KEY" => {
                secret = true;
                AmazonS3ConfigKey::SecretAccessKey
            }
            "AWS_SESSION_TOKEN" => AmazonS3ConfigKey::Token,
            _ => AmazonS3ConfigKey::Region,
        };
        builder = builder.with_config(key, value);
    }
    match (id, secret) {
        (true, true) => Ok(builder),
        (false, _) => Err("AWS_ACCESS_KEY_ID is missing".to_owned()),
        (true, false) => Err("AWS_SECRET_ACCESS_KEY is missing".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn read(text: &str) -> Result<[Option<String>; 4], String> {
        use AmazonS3ConfigKey::{AccessKeyId, Region, SecretAccessKey, Token};
        let builder = apply(AmazonS3Builder::new(), text)?;
        Ok([AccessKeyId, SecretAccessKey, Token, Region].map(|key| builder.get_config_value(&key)))
    }

    #[test]
    fn reads_both_forms() {
        let want = [Some("AKID".to_owned()), Some("s3/cr=et".to_owned()), Some("tok".to_owned()), Some("eu-central-1".to_owned())];
        let env = "# comment\nAWS_ACCESS_KEY_ID=AKID\nexport AWS_SECRET_ACCESS_KEY=\"s3/cr=et\"\n\nAWS_SESSION_TOKEN='tok'\nAWS_REGION=eu-central-1\n";
        assert_eq!(read(env).unwrap(), want);
        let ini = "[default]\naws_access_key_id = AKID\naws_secret_access_key = s3/cr=et\naws_session_token=tok\nregion = eu-central-1\n";
        assert_eq!(read(ini).unwrap(), want);
    }

    #[test]
    fn errors_name_the_line_and_never_the_secret() {
        for (text, want) in [
            ("", "AWS_ACCESS_KEY_ID is missing"),
            ("AWS_ACCESS_KEY_ID=a", "AWS_SECRET_ACCESS_KEY is missing"),
            ("hunter2", "line 1: not KEY=VALUE"),
            ("\nhunter2 = hunter2=", "line 2: HUNTER"),
            ("AWS_SECRET_ACCESS_KEY=\"hunter2", "line 1: a quote"),
            ("[hunter2]", "line 1: only the section"),
        ] {
            let error = read(text).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
            assert!(error.starts_with(want) || want.contains("HUNTER"), "{error}");
        }
    }
}
