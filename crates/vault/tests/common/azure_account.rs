//! The storage account that Azurite is told of.

/// Its name.
pub(crate) const ACCOUNT: &str = "lifeboattest";

/// Its key: "lifeboat's key for tests" in base64.
pub(crate) const ACCOUNT_KEY: &str = "bGlmZWJvYXQncyBrZXkgZm9yIHRlc3Rz";

/// A shared access signature for everything in it: <https://learn.microsoft.com/rest/api/storageservices/create-account-sas>, with HMAC-SHA256 by
/// that key over `ACCOUNT\nrwdlacup\nb\nsco\n\n2099-01-01T00:00:00Z\n\nhttps,http\n2023-11-03\n\n`.
pub(crate) const ACCOUNT_SAS: &str =
    "sv=2023-11-03&ss=b&srt=sco&sp=rwdlacup&se=2099-01-01T00:00:00Z&spr=https,http&sig=EZHCNspsZZSfkoU%2B8XAXb0R43o0ShmdLE1MHp3eCzJU%3D";
