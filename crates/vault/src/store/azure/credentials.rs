//! The storage account and how it is entered, out of a file or the environment, by the names that Azure's own tools use.

use object_store::azure::AzureConfigKey;

use super::super::object::client::{from_env, parts_of};
use super::super::object::settings;

/// What is known of the store beside the container.
pub(super) struct Settings {
    pub(super) account: String,
    /// The blob endpoint: `https://ACCOUNT.blob.core.windows.net`, or with the account in the path, as emulators have it.
    pub(super) endpoint: String,
    pub(super) credential: Credential,
}

pub(super) enum Credential {
    /// The account's key.
    Key(String),
    /// A shared access signature: the text of a query.
    Sas(String),
    /// A token of Entra ID for a service principal, a workload or a machine; what the library has to know to fetch it.
    Token(Vec<(AzureConfigKey, String)>),
}

const CONNECTION: &str = "AZURE_STORAGE_CONNECTION_STRING";
const ACCOUNT: [&str; 2] = ["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"];
const KEY: [&str; 2] = ["AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY"];
const SAS: [&str; 1] = ["AZURE_STORAGE_SAS_TOKEN"];
const ENDPOINT: [&str; 2] = ["AZURE_STORAGE_ENDPOINT", "AZURE_STORAGE_SERVICE_ENDPOINT"];
/// What a token is fetched with.
const PRINCIPAL: [(&str, AzureConfigKey); 5] = [
    ("AZURE_CLIENT_ID", AzureConfigKey::ClientId),
    ("AZURE_TENANT_ID", AzureConfigKey::AuthorityId),
    ("AZURE_CLIENT_SECRET", AzureConfigKey::ClientSecret),
    ("AZURE_FEDERATED_TOKEN_FILE", AzureConfigKey::FederatedTokenFile),
    ("AZURE_AUTHORITY_HOST", AzureConfigKey::AuthorityHost),
];
/// Where a machine or service other than a plain virtual machine asks for its identity.
const IDENTITY_ENDPOINT: &str = "IDENTITY_ENDPOINT";

impl Settings {
    /// From the text of a credentials file, where there is one, else the environment; the endpoint that was configured comes first.
    ///
    /// # Errors
    /// What is missing or wrong, without any secret.
    pub(super) fn gather(file: Option<&str>, endpoint: Option<&str>) -> Result<Self, String> {
        match file {
            None => Self::from(&|name: &str| from_env(&[name]), endpoint),
            Some(text) => {
                let mut known = vec![CONNECTION];
                known.extend(ACCOUNT.iter().chain(&KEY).chain(&SAS).chain(&ENDPOINT));
                known.extend(PRINCIPAL.iter().map(|(name, _)| *name));
                let lines = settings::parse(text, &known)?;
                let of_file = |name: &str| lines.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
                // Where the store is is no secret and may still come from the environment; credentials must not be mixed.
                let public = |name: &str| ACCOUNT.contains(&name) || ENDPOINT.contains(&name);
                let settings =
                    Self::from(&|name: &str| of_file(name).or_else(|| if public(name) { from_env(&[name]) } else { None }), endpoint)?;
                match settings.credential {
                    Credential::Token(keys) if !keys.iter().any(|(key, _)| is_proof(*key)) => Err(format!(
                        "no credentials: {} or {} or {CONNECTION} or AZURE_CLIENT_ID with AZURE_TENANT_ID and AZURE_CLIENT_SECRET",
                        KEY[0], SAS[0]
                    )),
                    credential => Ok(Self { credential, ..settings }),
                }
            }
        }
    }

    fn from(look: &dyn Fn(&str) -> Option<String>, endpoint: Option<&str>) -> Result<Self, String> {
        let first =
            |names: &[&str]| names.iter().find_map(|name| look(name)).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let connection = first(&[CONNECTION]).map(|text| Connection::parse(&text)).transpose()?.unwrap_or_default();
        let endpoint = endpoint.map(str::to_owned).or(connection.endpoint).or_else(|| first(&ENDPOINT));
        if let Some(endpoint) = &endpoint {
            parts_of(endpoint)?;
        }
        let account = connection.account.or_else(|| first(&ACCOUNT)).or_else(|| endpoint.as_deref().and_then(account_of));
        let Some(account) = account else {
            return Err(format!(
                "the storage account is not known; set {} or name the endpoint: https://ACCOUNT.blob.core.windows.net",
                ACCOUNT[0]
            ));
        };
        if !(3..=24).contains(&account.len()) || !account.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
            return Err("the name of the storage account is not one: 3 to 24 lower-case letters and digits".to_owned());
        }
        let suffix = connection.suffix.unwrap_or_else(|| "core.windows.net".to_owned());
        let endpoint = endpoint.unwrap_or_else(|| format!("https://{account}.blob.{suffix}"));
        let credential = match (connection.key.or_else(|| first(&KEY)), connection.sas.or_else(|| first(&SAS))) {
            (Some(key), _) => Credential::Key(key),
            (None, Some(sas)) => Credential::Sas(sas.trim_start_matches('?').to_owned()),
            (None, None) => {
                let mut keys: Vec<_> = PRINCIPAL.iter().filter_map(|(name, key)| Some((*key, first(&[*name])?))).collect();
                keys.extend(first(&[IDENTITY_ENDPOINT]).map(|endpoint| (AzureConfigKey::MsiEndpoint, endpoint)));
                Credential::Token(keys)
            }
        };
        Ok(Self { account, endpoint: endpoint.trim_end_matches('/').to_owned(), credential })
    }
}

/// Whether this proves who asks.
fn is_proof(key: AzureConfigKey) -> bool {
    matches!(key, AzureConfigKey::ClientSecret | AzureConfigKey::FederatedTokenFile)
}

/// The account in an endpoint: the first label of Azure's own, the first part of the path of an emulator's.
fn account_of(endpoint: &str) -> Option<String> {
    let (_, rest) = parts_of(endpoint).ok()?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let account = match host.split_once(".blob.") {
        Some((account, _)) => account,
        None => path.split('/').next()?,
    };
    (!account.is_empty()).then(|| account.to_owned())
}

/// What a connection string says of blobs: <https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string>.
#[derive(Default)]
struct Connection {
    account: Option<String>,
    key: Option<String>,
    sas: Option<String>,
    endpoint: Option<String>,
    suffix: Option<String>,
}

impl Connection {
    fn parse(text: &str) -> Result<Self, String> {
        let mut found = Self::default();
        for part in text.split(';').filter(|part| !part.trim().is_empty()) {
            let (name, value) = part.split_once('=').ok_or_else(|| format!("{CONNECTION} is not of the form NAME=VALUE;NAME=VALUE"))?;
            let value = Some(value.to_owned());
            match name.trim() {
                "AccountName" => found.account = value,
                "AccountKey" => found.key = value,
                "SharedAccessSignature" => found.sas = value,
                "BlobEndpoint" => found.endpoint = value,
                "EndpointSuffix" => found.suffix = value,
                "UseDevelopmentStorage" => {
                    return Err(format!("{CONNECTION}: write the emulator's account, key and BlobEndpoint out"));
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn gather(text: &str, endpoint: Option<&str>) -> Result<(String, String, &'static str), String> {
        let lines: Vec<_> = text.lines().filter_map(|line| line.split_once('=')).collect();
        let look = |name: &str| lines.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Settings::from(&look, endpoint).map(|settings| {
            let kind = match settings.credential {
                Credential::Key(_) => "key",
                Credential::Sas(_) => "sas",
                Credential::Token(_) => "token",
            };
            (settings.account, settings.endpoint, kind)
        })
    }

    #[test]
    fn the_names_of_azures_tools_are_understood() {
        let at = |account: &str, endpoint: &str, kind| Ok((account.to_owned(), endpoint.to_owned(), kind));
        let cloud = "https://acme.blob.core.windows.net";
        assert_eq!(gather("AZURE_STORAGE_ACCOUNT=acme\nAZURE_STORAGE_KEY=a==", None), at("acme", cloud, "key"));
        assert_eq!(gather("AZURE_STORAGE_ACCOUNT_NAME=acme\nAZURE_STORAGE_SAS_TOKEN=?sv=1&sig=x", None), at("acme", cloud, "sas"));
        assert_eq!(gather("AZURE_CLIENT_ID=c", Some("https://acme.blob.core.windows.net/")), at("acme", cloud, "token"));
        let here = "http://127.0.0.1:10000/devstoreaccount1";
        let string = format!(
            "AZURE_STORAGE_CONNECTION_STRING=DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=a==;BlobEndpoint={here};"
        );
        assert_eq!(gather(&string, None), at("devstoreaccount1", here, "key"));
        assert_eq!(gather("AZURE_STORAGE_KEY=a==", Some(here)), at("devstoreaccount1", here, "key"));
        let china = "AZURE_STORAGE_CONNECTION_STRING=AccountName=acme;AccountKey=a==;EndpointSuffix=core.chinacloudapi.cn";
        assert_eq!(gather(china, None), at("acme", "https://acme.blob.core.chinacloudapi.cn", "key"));
    }

    #[test]
    fn what_is_missing_is_said_without_the_secret() {
        for (text, endpoint, want) in [
            ("AZURE_STORAGE_KEY=hunter2", None, "the storage account is not known"),
            ("AZURE_STORAGE_ACCOUNT=Not/One\nAZURE_STORAGE_KEY=hunter2", None, "the name of the storage account"),
            ("AZURE_STORAGE_CONNECTION_STRING=hunter2", None, "AZURE_STORAGE_CONNECTION_STRING is not of the form"),
            ("AZURE_STORAGE_KEY=hunter2", Some("https://x:hunter2@host/acme"), "the endpoint must be"),
        ] {
            let error = gather(text, endpoint).unwrap_err();
            assert!(error.starts_with(want) && !error.contains("hunter2"), "{error}");
        }
        let file = Settings::gather(Some("AZURE_STORAGE_ACCOUNT_NAME=acme\nAZURE_CLIENT_ID=c"), None);
        assert!(file.err().unwrap().starts_with("no credentials: "));
        let file = Settings::gather(Some("AZURE_STORAGE_ACCOUNT_NAME=acme\nHUNTER=hunter2"), None);
        assert_eq!(file.err().unwrap(), "line 2: HUNTER is not known here");
    }
}
