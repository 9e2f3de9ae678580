//! Dead letters out of a broker and into one, as NDJSON.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Method;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Frame};
use serde_json::json;
use tokio::io::{AsyncRead, ReadBuf};

use super::{Filter, PATH, page};
use crate::bridge::Imported;
use crate::cli::admin_client::{AdminClient, AdminError};
use crate::cli::show::count;

/// Letters that are asked for at once; the broker ends a page that has many bytes.
const PAGE: usize = 1000;
/// Bytes of a file that are read at once.
const CHUNK: usize = 64 * 1024;

/// A file as the body of a request, read as it is sent.
struct Reader<R> {
    inner: R,
    chunk: Vec<u8>,
}

/// Writes all letters that the filter leaves, page by page.
pub(super) async fn export(
    client: &AdminClient,
    out: Option<&Path>,
    filter: &Filter,
    json: bool,
) -> Result<String, AdminError> {
    let Some(path) = out else {
        // Whoever closed standard output does not want to know.
        let _ = write_all(client, filter, |text| io::stdout().write_all(text)).await?;
        return Ok(String::new());
    };
    let failed = |error: io::Error| {
        let error = match error.kind() {
            io::ErrorKind::AlreadyExists => io::Error::other("there is such a file already: name a new one"),
            _ => error,
        };
        AdminError::File(path.display().to_string(), error)
    };
    let mut file: File =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    let written = write_all(client, filter, |text| file.write_all(text)).await?;
    let letters = written.and_then(|letters| file.sync_all().map(|()| letters)).map_err(failed)?;
    if json {
        return Ok(format!("{:#}", json!({ "exported": letters })));
    }
    Ok(format!("exported {} to {}", count(letters, "dead letter"), path.display()))
}

async fn write_all(
    client: &AdminClient,
    filter: &Filter,
    mut write: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<io::Result<u64>, AdminError> {
    let (mut letters, mut next) = (0, Some(0));
    while let Some(after) = next {
        let page = page(client, after, PAGE, filter).await?;
        for letter in &page.dead_letters {
            letters += 1;
            if let Err(error) = write(format!("{letter}\n").as_bytes()) {
                return Ok(Err(error));
            }
        }
        next = page.next;
    }
    Ok(Ok(letters))
}

/// Has the broker file the letters of a file.
pub(super) async fn import(client: &AdminClient, file: &Path, json: bool) -> Result<String, AdminError> {
    let path = format!("{PATH}/import");
    let source = if file == Path::new("-") { Path::new("/dev/stdin") } else { file };
    let opened = tokio::fs::File::open(source).await;
    let opened = opened.map_err(|error| AdminError::File(file.display().to_string(), error))?;
    let answer = client.ask_with(Method::POST, &path, Reader::new(opened).boxed_unsync()).await?;
    if json {
        return Ok(format!("{answer:#}"));
    }
    let Imported { imported, known, new_keys } = client.read(answer)?;
    let mut text = format!("imported {}", count(imported, "dead letter"));
    if known > 0 {
        text.push_str(&format!("; {known} were there already"));
    }
    if new_keys > 0 {
        text.push_str(&format!(
            "; targets will see {new_keys} of them under new keys, because their messages have no number of this \
             database"
        ));
    }
    Ok(text)
}

impl<R> Reader<R> {
    fn new(inner: R) -> Self {
        Self { inner, chunk: vec![0; CHUNK] }
    }
}

impl<R: AsyncRead + Unpin> Body for Reader<R> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Self { inner, chunk } = self.get_mut();
        let mut buffer = ReadBuf::new(chunk);
        Poll::Ready(match ready!(Pin::new(inner).poll_read(cx, &mut buffer)) {
            Ok(()) if buffer.filled().is_empty() => None,
            Ok(()) => Some(Ok(Frame::data(Bytes::copy_from_slice(buffer.filled())))),
            Err(error) => Some(Err(error)),
        })
    }
}
