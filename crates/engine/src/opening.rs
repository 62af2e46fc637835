//! What opens a sealed backup: identity files, a passphrase, plugins; and who is there to be asked meanwhile.

use std::path::PathBuf;

use vault::manifest::Sealing;
use vault::seal::{Callbacks, ExposeSecret as _, Identities, SecretString};

use crate::failure::{Code, Failure, Outcome};
use crate::limits::IDENTITY;

/// How a plugin (a hardware key that wants to be touched, or its PIN) and an encrypted identity file reach a person. Both are plain functions, for
/// they are called in the middle of blocking work, from any thread.
#[derive(Clone, Copy)]
pub struct Person {
    /// Says something.
    pub tell: fn(&str),
    /// Asks for a secret; none where nobody is there, or nobody answers.
    pub ask: fn(&str) -> Option<SecretString>,
}

impl Default for Person {
    /// Nobody.
    fn default() -> Self {
        Self { tell: |_| (), ask: |_| None }
    }
}

impl std::fmt::Debug for Person {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Person")
    }
}

impl Callbacks for Person {
    fn display_message(&self, message: &str) {
        (self.tell)(message);
    }

    fn confirm(&self, message: &str, yes: &str, no: Option<&str>) -> Option<bool> {
        let no = no.map(|no| format!(", n for '{no}'")).unwrap_or_default();
        let answer = (self.ask)(&format!("{message} (y for '{yes}'{no})"))?;
        match answer.expose_secret().trim() {
            "y" | "Y" => Some(true),
            "n" | "N" => Some(false),
            _ => None,
        }
    }

    fn request_public_string(&self, description: &str) -> Option<String> {
        (self.ask)(description).map(|answer| answer.expose_secret().to_owned())
    }

    fn request_passphrase(&self, description: &str) -> Option<SecretString> {
        (self.ask)(description)
    }
}

/// Everything that was given to open a backup with.
#[derive(Clone, Debug, Default)]
pub struct Opening {
    /// Files with identities.
    pub identities: Vec<PathBuf>,
    /// Identities that no file holds.
    pub in_memory: Vec<InMemory>,
    /// A passphrase: for backups sealed with one, and for identity files that are encrypted with one.
    pub passphrase: Option<SecretString>,
    /// Who can be asked.
    pub person: Person,
}

/// Identities that were told, and lie in memory alone.
#[derive(Clone, Debug)]
pub struct InMemory {
    /// Who told them, for errors.
    pub source: String,
    /// What an identity file would hold.
    pub content: SecretString,
}

/// Answers for an identity file: the passphrase that was given, before anybody is asked.
#[derive(Clone)]
struct ForFile(Person, Option<SecretString>);

impl Callbacks for ForFile {
    fn display_message(&self, message: &str) {
        self.0.display_message(message);
    }
    fn confirm(&self, message: &str, yes: &str, no: Option<&str>) -> Option<bool> {
        self.0.confirm(message, yes, no)
    }
    fn request_public_string(&self, description: &str) -> Option<String> {
        self.0.request_public_string(description)
    }
    fn request_passphrase(&self, description: &str) -> Option<SecretString> {
        self.1.clone().or_else(|| self.0.request_passphrase(description))
    }
}

impl Opening {
    /// Whether nothing was given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.identities.is_empty() && self.in_memory.is_empty() && self.passphrase.is_none()
    }

    /// Reads the identity files, and adds what lies in memory and the passphrase. An encrypted file takes about a second.
    pub fn read(&self) -> Outcome<Identities> {
        let mut identities = Identities::new();
        for path in &self.identities {
            let name = path.display().to_string();
            let content = std::fs::read(path).map_err(|error| unreadable(&name, &error))?;
            self.add(&mut identities, &name, &content)?;
        }
        for InMemory { source, content } in &self.in_memory {
            self.add(&mut identities, source, content.expose_secret().as_bytes())?;
        }
        if let Some(passphrase) = &self.passphrase {
            identities.add_passphrase(passphrase.clone());
        }
        Ok(identities)
    }

    fn add(&self, identities: &mut Identities, name: &str, content: &[u8]) -> Outcome<()> {
        // A PIN that a plugin asks for is not the passphrase; it goes to the person alone.
        let added = if Identities::is_encrypted(content) {
            identities.add_file(name, content, ForFile(self.person, self.passphrase.clone()))
        } else {
            identities.add_file(name, content, self.person)
        };
        added.map_err(|error| unreadable(name, &error))
    }

    /// The flags that say the same, for a command to be shown. A passphrase is asked for again.
    #[must_use]
    pub fn flags(&self) -> Vec<String> {
        let mut words: Vec<String> =
            self.identities.iter().flat_map(|path| ["-i".to_owned(), path.to_string_lossy().into_owned()]).collect();
        words.extend(self.passphrase.iter().map(|_| "--passphrase".to_owned()));
        words
    }
}

fn unreadable(name: &str, cause: &dyn std::fmt::Display) -> Failure {
    Failure::usage("the identity cannot be read").object(name).cause(cause).again()
}

/// A sealed object was asked for, and nothing was given to open it with.
pub(crate) fn nothing_given(sealing: &Sealing, object: impl std::fmt::Display, more: &str) -> Failure {
    if sealing.passphrase {
        Failure::new(Code::NoKey, "the backup is sealed with a passphrase, and none was given")
            .object(object)
            .cause(format!("give --passphrase to be asked for it, or --passphrase-file or --passphrase-command{more}"))
            .again_with(["--passphrase"])
    } else {
        Failure::new(Code::NoKey, "the backup is sealed, and no identity was given")
            .object(object)
            .cause(format!("name the recovery identity with -i, or keys.identity_file in lifeboat.yaml{more}"))
            .again_with(["-i", IDENTITY])
    }
}

/// What was given does not open it. `what` says so.
pub(crate) fn not_opened(sealing: &Sealing, object: impl std::fmt::Display, so: &str) -> Failure {
    if sealing.passphrase {
        return Failure::new(Code::NoKey, format!("nothing given opens this backup{so}"))
            .object(object)
            .cause("it is sealed with a passphrase, which is another one than was given, or was not given")
            .again_with(["--passphrase"]);
    }
    let recipients: Vec<String> = sealing.recipients.iter().map(ToString::to_string).collect();
    Failure::new(Code::NoKey, format!("no identity given opens this backup{so}"))
        .object(object)
        .cause(format!(
            "it is sealed to the recipients with the fingerprints {}; name one of their identities with -i",
            recipients.join(", ")
        ))
        .again()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use vault::seal::recipients::{generate_identity, seal_bytes};
    use vault::seal::{NoCallbacks, Recipients, identities::open_bytes};

    fn secret(text: &str) -> SecretString {
        SecretString::from(text.to_owned())
    }

    #[test]
    fn the_passphrase_given_opens_backups_and_encrypted_identity_files() {
        let directory = tempfile::tempdir().unwrap();
        let (identity, recipient) = generate_identity();
        let lock = Recipients::passphrase(secret("open")).with_work_factor(2);
        let file = directory.path().join("identity.age");
        std::fs::write(&file, seal_bytes(&lock, identity.expose_secret().as_bytes(), NoCallbacks).unwrap()).unwrap();
        let to_key = seal_bytes(&Recipients::keys([recipient.as_str()]).unwrap(), b"a", NoCallbacks).unwrap();
        let to_passphrase = seal_bytes(&lock, b"b", NoCallbacks).unwrap();

        let both = Opening { identities: vec![file.clone()], passphrase: Some(secret("open")), ..Opening::default() };
        let opened = both.read().unwrap();
        assert_eq!(open_bytes(&opened, &to_key, 1).unwrap(), b"a");
        assert_eq!(open_bytes(&opened, &to_passphrase, 1).unwrap(), b"b");
        assert!(!both.is_empty() && both.flags() == ["-i", &file.to_string_lossy(), "--passphrase"], "{:?}", both.flags());

        let asked =
            Opening { identities: vec![file.clone()], person: Person { ask: |_| Some(secret("open")), ..Person::default() }, ..both };
        let asked = Opening { passphrase: None, ..asked };
        assert_eq!(open_bytes(&asked.read().unwrap(), &to_key, 1).unwrap(), b"a");
        let nobody = Opening { person: Person::default(), ..asked };
        assert!(nobody.read().unwrap_err().cause.unwrap().contains("nobody to ask"));
    }

    #[test]
    fn what_was_told_opens_as_a_file_does_and_is_not_shown() {
        let (identity, recipient) = generate_identity();
        let sealed = seal_bytes(&Recipients::keys([recipient.as_str()]).unwrap(), b"a", NoCallbacks).unwrap();
        let told = |content| InMemory { source: "a command".to_owned(), content };
        let opening = Opening { in_memory: vec![told(identity.clone())], ..Opening::default() };
        assert_eq!(open_bytes(&opening.read().unwrap(), &sealed, 1).unwrap(), b"a");
        assert!(!opening.is_empty() && opening.flags().is_empty() && !format!("{opening:?}").contains(identity.expose_secret()));
        let wrong = Opening { in_memory: vec![told(secret("what is this"))], ..Opening::default() };
        let failure = wrong.read().unwrap_err();
        assert!(failure.object.as_deref() == Some("a command") && !failure.to_string().contains("what is this"), "{failure}");
    }

    #[test]
    fn a_person_confirms_by_a_letter() {
        let says = |ask| Person { ask, ..Person::default() }.confirm("touch it", "done", Some("give up"));
        assert_eq!(says(|question| question.contains("'done'").then(|| secret("y"))), Some(true));
        assert_eq!(says(|_| Some(secret("n"))), Some(false));
        assert_eq!(says(|_| Some(secret("what"))), None);
        assert_eq!(says(|_| None), None);
    }
}
