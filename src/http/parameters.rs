//! Parameters of a query string and a form, decoded.

use crate::http::body;
use crate::http::error::ApiError;
use crate::text::{decode_form, start_of};
use axum::extract::Request;
use axum::http::{HeaderValue, header};

/// Most parameters that are looked at: one more than makes a duplicate certain would do.
const PARAMETERS_MAX: usize = 100;

/// The parameters of a request, those of the query string first. A form has at most `form_bytes_max` bytes.
pub(super) async fn read(request: Request, form_bytes_max: usize) -> Result<Vec<(String, String)>, ApiError> {
    let mut pairs = Vec::new();
    decode(request.uri().query().unwrap_or_default(), &mut pairs)?;
    let content_type = request.headers().get(header::CONTENT_TYPE).cloned();
    let form = body::read_small(request, form_bytes_max).await?;
    if !form.is_empty() {
        check_content_type(content_type.as_ref())?;
        let form = std::str::from_utf8(&form)
            .map_err(|_| ApiError::bad_request("the form is not UTF-8: percent-encode its values"))?;
        decode(form, &mut pairs)?;
    }
    Ok(pairs)
}

fn check_content_type(value: Option<&HeaderValue>) -> Result<(), ApiError> {
    let Some(value) = value else { return Ok(()) };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "the body's content type is {essence:?}: send parameters as application/x-www-form-urlencoded"
    )))
}

/// Adds the pairs of `name=value&…`.
fn decode(text: &str, pairs: &mut Vec<(String, String)>) -> Result<(), ApiError> {
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        if pairs.len() == PARAMETERS_MAX {
            return Err(ApiError::bad_request(format!("more than {PARAMETERS_MAX} parameters")));
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode_form(name).ok_or_else(|| {
            ApiError::bad_request("the name of a parameter is not UTF-8 after percent-decoding")
        })?;
        let Some(value) = decode_form(value) else {
            let message = format!("parameter {:?}: it is not UTF-8 after percent-decoding", start_of(&name));
            return Err(ApiError::bad_request(message));
        };
        pairs.push((name, value));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    const FORM_BYTES_MAX: usize = 1 << 10;

    async fn read_form(query: &str, content_type: Option<&str>, body: Vec<u8>) -> Result<String, ApiError> {
        let mut request = Request::builder().method("POST").uri(format!("/x?{query}"));
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let pairs = read(request.body(Body::from(body)).expect("a request"), FORM_BYTES_MAX).await?;
        Ok(pairs.iter().map(|(n, v)| format!("{n}:{v};")).collect())
    }

    #[tokio::test]
    async fn query_and_form_are_taken_together_and_decoded() {
        let form = Some("application/x-www-form-urlencoded; charset=UTF-8");
        let pairs = read_form("a=1+2&b&&c=%C3%A4", form, b"a=x%3Dy=z&d=%zz".to_vec()).await;
        assert_eq!(pairs.expect("read"), "a:1 2;b:;c:ä;a:x=y=z;d:%zz;");
        assert_eq!(read_form("", None, b"a=1".to_vec()).await.expect("read"), "a:1;");
        assert_eq!(read_form("a=1", Some("text/plain"), Vec::new()).await.expect("read"), "a:1;");
    }

    #[tokio::test]
    async fn what_is_no_form_is_refused() {
        let code = |result: Result<String, ApiError>| result.expect_err("refused").code.as_u16();
        assert_eq!(code(read_form("", Some("application/json"), b"{}".to_vec()).await), 400);
        assert_eq!(code(read_form("", None, vec![0xff; 10]).await), 400);
        assert_eq!(code(read_form("a=%ff", None, Vec::new()).await), 400);
        assert_eq!(code(read_form("%ff=a", None, Vec::new()).await), 400);
        assert_eq!(code(read_form("", None, vec![b'a'; FORM_BYTES_MAX + 1]).await), 413);
        let cut = futures::stream::iter([Ok(vec![b'a']), Err(std::io::Error::other("gone"))]);
        let request = Request::post("/x").body(Body::from_stream(cut)).expect("a request");
        assert_eq!(read(request, FORM_BYTES_MAX).await.expect_err("refused").code, 400, "the client stopped");
        assert_eq!(code(read_form(&"a=1&".repeat(101), None, Vec::new()).await), 400);
    }
}
