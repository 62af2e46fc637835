//! The XML API of Google Cloud Storage before fake-gcs-server, which writes by the JSON API alone.
//!
//! fake-gcs-server 1.56 answers XML reads, and to a `PUT` of an object or to anything of a multipart upload 400 "invalid uploadType"; its XML
//! listing has no pages, and a missing bucket is an internal error there. `object_store` writes by the XML API. So this says the one in terms of the
//! other, request by request: what is there, its generations, the atomic condition, ranges and removal are fake-gcs-server's; the parts of an
//! upload that is not completed, the rules for them, pages and the XML of errors are this file's, after
//! <https://cloud.google.com/storage/docs/xml-api/overview>.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);
/// Objects on one page of a listing, as Google has it.
const PAGE: &str = "1000";
/// The smallest part that is not the last one, in bytes.
const MIN_PART: usize = 5 << 20;

/// A bridge; it serves until the process ends.
#[derive(Debug)]
pub(crate) struct Bridge {
    pub(crate) address: SocketAddr,
    uploads: Uploads,
}

/// Parts by their number, of uploads that are neither completed nor given up.
type Uploads = Arc<Mutex<BTreeMap<String, BTreeMap<usize, Vec<u8>>>>>;

impl Bridge {
    pub(crate) fn before(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let uploads = Uploads::default();
        let shared = Arc::clone(&uploads);
        thread::spawn(move || {
            for client in listener.incoming() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(client.unwrap(), upstream, &shared));
            }
        });
        Self { address, uploads }
    }

    /// How many uploads are neither completed nor given up.
    #[allow(dead_code, reason = "not every test that includes this file counts them")]
    pub(crate) fn unfinished_uploads(&self) -> usize {
        self.uploads.lock().unwrap().len()
    }
}

/// One HTTP message.
#[derive(Debug, Default)]
struct Message {
    first: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Message {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn status(&self) -> u16 {
        self.first.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    fn answer(status: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { first: format!("HTTP/1.1 {status}"), headers, body: body.into() }
    }

    fn error(status: &str, code: &str) -> Self {
        let body =
            format!("<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{code}, says the bridge.</Message></Error>");
        Self::answer(status, &[("content-type", "application/xml; charset=UTF-8")], body)
    }

    /// Reads a head, then a body of the stated length, or up to the end of the connection where none is stated and `to_end` says so.
    fn read(stream: &mut TcpStream, to_end: bool) -> Option<Self> {
        let mut bytes = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return None,
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.lines();
        let first = lines.next()?.to_owned();
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut message = Self { first, headers, body: bytes[end..].to_vec() };
        let length: Option<usize> = message.header("content-length").and_then(|text| text.parse().ok());
        while length.map_or(to_end, |length| message.body.len() < length) {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(count) => message.body.extend_from_slice(&buffer[..count]),
            }
        }
        Some(message)
    }

    fn write(&self, stream: &mut TcpStream, head_only: bool) {
        let mut text = format!("{}\r\n", self.first);
        for (name, value) in
            self.headers.iter().filter(|(name, _)| !["connection", "content-length", "transfer-encoding"].contains(&name.as_str()))
        {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        let length = self.body.len().to_string();
        let length = if head_only { self.header("content-length").unwrap_or(&length) } else { &length };
        text.push_str(&format!("content-length: {length}\r\nconnection: close\r\n\r\n"));
        let _ = stream.write_all(text.as_bytes());
        if !head_only {
            let _ = stream.write_all(&self.body);
        }
    }
}

/// A request as the API sees it.
struct Asked {
    method: String,
    bucket: String,
    /// Percent-encoded, as it came.
    object: String,
    query: Vec<(String, String)>,
    message: Message,
    upstream: SocketAddr,
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = if bytes[at] == b'%' { text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok()) } else { None };
        plain.push(hex.unwrap_or(if bytes[at] == b'+' { b' ' } else { bytes[at] }));
        at += if hex.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&plain).into_owned()
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

impl Asked {
    fn new(message: Message, upstream: SocketAddr) -> Option<Self> {
        let mut words = message.first.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let (bucket, object) = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let query = pairs.map(|(name, value)| (name.to_owned(), decoded(value))).collect();
        Some(Self { method, bucket: decoded(bucket), object: object.to_owned(), query, message, upstream })
    }

    fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Asks fake-gcs-server. HTTP/1.0: it states the length of an answer or ends the connection after it, and does not send chunks.
    fn ask(&self, method: &str, target: &str, headers: &str, body: &[u8]) -> Message {
        let mut stream = TcpStream::connect(self.upstream).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!("{method} {target} HTTP/1.0\r\nHost: {}\r\nContent-Length: {}\r\n{headers}\r\n", self.upstream, body.len());
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        Message::read(&mut stream, method != "HEAD").unwrap_or_default()
    }

    fn has_bucket(&self) -> bool {
        self.ask("GET", &format!("/storage/v1/b/{}", encoded(&self.bucket)), "", b"").status() == 200
    }

    fn missing(&self, code: &str) -> Message {
        if self.has_bucket() { Message::error("404 Not Found", code) } else { Message::error("404 Not Found", "NoSuchBucket") }
    }

    /// `PUT` of an object: <https://cloud.google.com/storage/docs/xml-api/put-object>.
    fn put(&self, bytes: &[u8], generation: Option<&str>) -> Message {
        let condition = generation.map(|generation| format!("&ifGenerationMatch={generation}")).unwrap_or_default();
        let target = format!("/upload/storage/v1/b/{}/o?uploadType=media&name={}{condition}", encoded(&self.bucket), self.object);
        let written = self.ask("POST", &target, "Content-Type: application/octet-stream\r\n", bytes);
        match written.status() {
            200 => {
                let fact = |name: &str| serde_json::from_slice::<Value>(&written.body).unwrap()[name].as_str().unwrap().to_owned();
                Message::answer("200 OK", &[("etag", &format!("\"{}\"", fact("etag"))), ("x-goog-generation", &fact("generation"))], "")
            }
            404 => self.missing("NoSuchKey"),
            412 => Message::error("412 Precondition Failed", "PreconditionFailed"),
            other => Message::error("500 Internal Server Error", &format!("Fake{other}")),
        }
    }

    /// `GET` or `HEAD` of an object: <https://cloud.google.com/storage/docs/xml-api/get-object-download>.
    fn get(&self) -> Message {
        let range = self.message.header("range").map(|range| format!("Range: {range}\r\n")).unwrap_or_default();
        let found = self.ask(&self.method, &format!("/{}/{}", encoded(&self.bucket), self.object), &range, b"");
        match found.status() {
            404 => self.missing("NoSuchKey"),
            200 | 206 if self.message.header("if-match").is_some_and(|wanted| found.header("etag") != Some(wanted)) => {
                Message::error("412 Precondition Failed", "PreconditionFailed")
            }
            _ => found,
        }
    }

    /// <https://cloud.google.com/storage/docs/xml-api/get-bucket-list>.
    fn list(&self) -> Message {
        let mut target = format!("/storage/v1/b/{}/o?maxResults={PAGE}", encoded(&self.bucket));
        for (ours, theirs) in [("prefix", "prefix"), ("delimiter", "delimiter"), ("continuation-token", "pageToken")] {
            target.extend(self.query(ours).map(|value| format!("&{theirs}={}", encoded(value))));
        }
        let listed = self.ask("GET", &target, "", b"");
        if listed.status() != 200 {
            return self.missing("NoSuchBucket");
        }
        let listed: Value = serde_json::from_slice(&listed.body).unwrap();
        let mut xml = "<?xml version='1.0' encoding='UTF-8'?><ListBucketResult>".to_owned();
        for object in listed["items"].as_array().into_iter().flatten() {
            let fact = |name: &str| object[name].as_str().unwrap();
            xml.push_str(&format!(
                "<Contents><Key>{}</Key><Generation>{}</Generation><LastModified>{}</LastModified><ETag>\"{}\"</ETag><Size>{}</Size></Contents>",
                fact("name"),
                fact("generation"),
                fact("updated"),
                fact("etag"),
                fact("size")
            ));
        }
        for prefix in listed["prefixes"].as_array().into_iter().flatten() {
            xml.push_str(&format!("<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>", prefix.as_str().unwrap()));
        }
        if let Some(token) = listed["nextPageToken"].as_str().filter(|token| !token.is_empty()) {
            xml.push_str(&format!("<NextContinuationToken>{token}</NextContinuationToken>"));
        }
        Message::answer("200 OK", &[("content-type", "application/xml; charset=UTF-8")], xml + "</ListBucketResult>")
    }

    fn delete(&self) -> Message {
        let target = format!("/storage/v1/b/{}/o/{}", encoded(&self.bucket), self.object);
        match self.ask("DELETE", &target, "", b"").status() {
            404 => self.missing("NoSuchKey"),
            _ => Message::answer("204 No Content", &[], ""),
        }
    }

    /// <https://cloud.google.com/storage/docs/xml-api/post-object-multipart>.
    fn begin(&self, uploads: &Uploads) -> Message {
        if !self.has_bucket() {
            return self.missing("NoSuchBucket");
        }
        let mut uploads = uploads.lock().unwrap();
        let id =
            format!("upload-{}-{}", self.object.len(), (0..).find(|n| !uploads.keys().any(|id| id.ends_with(&format!("-{n}")))).unwrap());
        uploads.insert(id.clone(), BTreeMap::new());
        let xml = format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>");
        Message::answer("200 OK", &[("content-type", "application/xml")], xml)
    }

    fn part(&self, uploads: &Uploads, id: &str, number: &str) -> Message {
        let mut uploads = uploads.lock().unwrap();
        let Some(upload) = uploads.get_mut(id) else { return Message::error("404 Not Found", "NoSuchUpload") };
        upload.insert(number.parse().unwrap(), self.message.body.clone());
        Message::answer("200 OK", &[("etag", &etag_of(&self.message.body))], "")
    }

    /// <https://cloud.google.com/storage/docs/xml-api/post-object-complete>.
    fn complete(&self, uploads: &Uploads, id: &str) -> Message {
        let Some(parts) = uploads.lock().unwrap().get(id).cloned() else { return Message::error("404 Not Found", "NoSuchUpload") };
        let asked = String::from_utf8_lossy(&self.message.body).into_owned();
        let mut whole = Vec::new();
        let list: Vec<_> = asked.split("<Part>").skip(1).collect();
        for (at, part) in list.iter().enumerate() {
            let word = |name: &str| part.split_once(&format!("<{name}>")).and_then(|(_, rest)| rest.split_once('<')).map(|(word, _)| word);
            let number: usize = word("PartNumber").unwrap().parse().unwrap();
            match parts.get(&number) {
                Some(bytes) if word("ETag").map(|etag| etag.replace("&quot;", "\"")) == Some(etag_of(bytes)) => {
                    if bytes.len() < MIN_PART && at + 1 < list.len() {
                        return Message::error("400 Bad Request", "EntityTooSmall");
                    }
                    whole.extend_from_slice(bytes);
                }
                _ => return Message::error("400 Bad Request", "InvalidPart"),
            }
        }
        let written = self.put(&whole, None);
        if written.status() != 200 {
            return written;
        }
        uploads.lock().unwrap().remove(id);
        let etag = written.header("etag").unwrap();
        let xml =
            format!("<CompleteMultipartUploadResult><Bucket>{}</Bucket><ETag>{etag}</ETag></CompleteMultipartUploadResult>", self.bucket);
        Message::answer("200 OK", &[("content-type", "application/xml")], xml)
    }

    fn abandon(&self, uploads: &Uploads, id: &str) -> Message {
        match uploads.lock().unwrap().remove(id) {
            Some(_) => Message::answer("204 No Content", &[], ""),
            None => Message::error("404 Not Found", "NoSuchUpload"),
        }
    }
}

/// A part's entity tag: any function of its bytes.
fn etag_of(bytes: &[u8]) -> String {
    let sum = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    format!("\"{sum:016x}\"")
}

fn serve(mut client: TcpStream, upstream: SocketAddr, uploads: &Uploads) {
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let Some(asked) = Message::read(&mut client, false).and_then(|message| Asked::new(message, upstream)) else { return };
    let answer = if asked.message.header("authorization").is_none_or(|token| !token.starts_with("Bearer ")) {
        Message::error("401 Unauthorized", "AuthenticationRequired")
    } else {
        match (asked.method.as_str(), asked.query("uploadId"), asked.query("partNumber")) {
            ("GET", None, _) if asked.object.is_empty() => asked.list(),
            ("GET" | "HEAD", None, _) => asked.get(),
            ("PUT", Some(id), Some(number)) => asked.part(uploads, id, number),
            ("PUT", None, None) => asked.put(&asked.message.body, asked.message.header("x-goog-if-generation-match")),
            ("POST", None, _) if asked.query("uploads").is_some() => asked.begin(uploads),
            ("POST", Some(id), None) => asked.complete(uploads, id),
            ("DELETE", Some(id), None) => asked.abandon(uploads, id),
            ("DELETE", None, None) => asked.delete(),
            _ => Message::error("501 Not Implemented", "NotImplemented"),
        }
    };
    answer.write(&mut client, asked.method == "HEAD");
}
