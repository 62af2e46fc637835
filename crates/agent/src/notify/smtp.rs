//! Mail.

use std::time::SystemTime;

use engine::config::Smtp;
use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use secrecy::ExposeSecret;
use url::Url;
use vault::store::authorities;

use super::{Message, Trouble, address, chain, cut};
use crate::limits::{ANSWER_SHOWN, CERTIFICATES_MOST, TELL_WITHIN};

/// A mail, and the way to its server.
pub(super) struct Mail {
    place: String,
    mail: lettre::Message,
    transport: AsyncSmtpTransport<Tokio1Executor>,
}

/// How a connection is kept from being read by others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Secrecy {
    /// After STARTTLS, without which nothing is sent.
    StartTls,
    /// From the first byte on.
    Tls,
    /// Not at all.
    None,
}

pub(super) fn mail(smtp: &Smtp, message: &Message) -> Result<Mail, String> {
    let (secrecy, host, port) = server(&smtp.server)?;
    let tls = match secrecy {
        Secrecy::None => Tls::None,
        Secrecy::StartTls => Tls::Required(parameters(smtp, &host)?),
        Secrecy::Tls => Tls::Wrapper(parameters(smtp, &host)?),
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host.clone())
        .port(port)
        .tls(tls)
        .hello_name(ClientId::Domain(message.host.clone()))
        .timeout(Some(TELL_WITHIN));
    if let (Some(user), Some(file)) = (&smtp.user, &smtp.password_file) {
        builder = builder.credentials(Credentials::new(user.clone(), address::secret(file)?.expose_secret().to_owned()));
    }
    let scheme = smtp.server.split("://").next().unwrap_or_default();
    Ok(Mail { place: format!("{scheme}://{host}:{port}"), mail: letter(smtp, message)?, transport: builder.build() })
}

/// Who is asked, how, and at which port.
fn server(text: &str) -> Result<(Secrecy, String, u16), String> {
    let expected = || "smtp.server: smtp://HOST:PORT, smtps://HOST:PORT or smtp+plain://HOST:PORT is expected".to_owned();
    let url = Url::parse(text).map_err(|_| expected())?;
    let (secrecy, usual) = match url.scheme() {
        "smtp" => (Secrecy::StartTls, 587),
        "smtps" => (Secrecy::Tls, 465),
        "smtp+plain" => (Secrecy::None, 25),
        _ => return Err(expected()),
    };
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(expected)?;
    if !url.username().is_empty() || url.password().is_some() || !matches!(url.path(), "" | "/") {
        return Err(expected());
    }
    Ok((secrecy, host.trim_matches(['[', ']']).to_owned(), url.port().unwrap_or(usual)))
}

fn parameters(smtp: &Smtp, host: &str) -> Result<TlsParameters, String> {
    let mut builder = TlsParameters::builder(host.to_owned());
    let built_in = authorities::built_in();
    if !built_in.is_empty() {
        builder = builder.certificate_store(CertificateStore::None);
        for certificate in built_in.iter().filter_map(|der| Certificate::from_der(der.to_vec()).ok()) {
            builder = builder.add_root_certificate(certificate);
        }
    }
    if let Some(file) = &smtp.ca_file {
        let text = address::bounded(file, CERTIFICATES_MOST)?;
        let certificate = Certificate::from_pem(text.as_bytes()).map_err(|_| format!("{}: no certificates", file.display()))?;
        builder = builder.add_root_certificate(certificate);
    }
    builder.build().map_err(|error| format!("TLS cannot be set up: {error}"))
}

fn letter(smtp: &Smtp, message: &Message) -> Result<lettre::Message, String> {
    let mailbox = |text: &str| text.parse::<Mailbox>().map_err(|error| format!("'{text}' is no mail address: {error}"));
    let mut builder = lettre::Message::builder().from(mailbox(&smtp.from)?);
    for to in &smtp.to {
        builder = builder.to(mailbox(to)?);
    }
    let text = format!("{}\n\n-- \nlifeboat on {}, {}\n", message.text.trim_end(), message.host, message.at);
    builder
        .subject(message.subject())
        .date(SystemTime::from(message.at))
        .message_id(None)
        .header(ContentType::TEXT_PLAIN)
        .body(text)
        .map_err(|error| format!("no mail can be made of the message: {error}"))
}

impl Mail {
    /// Scheme and host.
    pub(super) fn place(&self) -> String {
        self.place.clone()
    }

    pub(super) async fn send(&self) -> Result<String, Trouble> {
        // lettre's own limit holds for each step; this one holds for all of them.
        let sent = tokio::time::timeout(TELL_WITHIN, self.transport.send(self.mail.clone())).await;
        match sent {
            Ok(Ok(response)) => Ok(cut(&format!("{} {}", response.code(), response.message().collect::<Vec<_>>().join(" ")), ANSWER_SHOWN)),
            Ok(Err(error)) => {
                let why = cut(&chain(&error), ANSWER_SHOWN);
                Err(if error.is_permanent() || error.is_client() || error.is_tls() { Trouble::lasting(why) } else { Trouble::passing(why) })
            }
            Err(_) => Err(Trouble::passing(format!("no answer within {} s", TELL_WITHIN.as_secs()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::message;
    use super::*;

    #[test]
    fn servers() {
        let read = |text: &str| server(text).map(|(_, host, port)| format!("{host} {port}"));
        assert_eq!(read("smtp://mail.example").unwrap(), "mail.example 587");
        assert_eq!(read("smtps://mail.example").unwrap(), "mail.example 465");
        assert_eq!(read("smtp+plain://[::1]:2525").unwrap(), "::1 2525");
        for bad in ["smtp://", "mail.example", "smtp://user:secret@mail.example", "http://mail.example", "smtp://mail.example/x"] {
            assert!(read(bad).unwrap_err().contains("is expected"), "{bad}");
        }
    }

    #[test]
    fn a_title_cannot_add_headers() {
        let smtp = Smtp { from: "Lifeboat <a@b.example>".to_owned(), to: vec!["c@d.example".to_owned()], ..Smtp::default() };
        let message = Message { title: "x\r\nBcc: everybody@example".to_owned(), text: "hällo\n.\nend".to_owned(), ..message() };
        let text = String::from_utf8(letter(&smtp, &message).unwrap().formatted()).unwrap();
        assert!(!text.contains("\nBcc:") && text.contains("Subject:"), "{text}");
        assert!(letter(&Smtp { to: vec!["nobody".to_owned()], ..smtp }, &message).is_err());
    }
}
