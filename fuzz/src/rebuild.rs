//! Decoded messages written down again: by the crate's own encoder where it has one, else after the protocol's
//! documentation. A message that does not come out as it went in was understood differently from what it says.

use bytes::{BufMut, Bytes, BytesMut};
use exeat_wire::fields::Fields;
use exeat_wire::frontend::SaslInitialResponse;
use exeat_wire::{
    Authentication, BackendMessage, Bind, CopyResponse, Format, FrontendMessage, FunctionCall, RowDescription,
    StartupMessage, encode,
};

/// `None`: the message is kept as a frame and not taken apart.
pub fn startup(message: &StartupMessage) -> Option<BytesMut> {
    let mut out = BytesMut::new();
    match message {
        StartupMessage::SslRequest => encode::ssl_request(&mut out),
        StartupMessage::GssEncRequest => out.put_slice(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30]),
        StartupMessage::Cancel { pid, secret } => encode::cancel_request(&mut out, *pid, secret).expect("it was read"),
        StartupMessage::Startup(startup) => {
            let parameters: Vec<(&str, &str)> =
                startup.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            encode::startup(&mut out, startup.minor, &parameters).expect("it was read");
        }
        StartupMessage::DirectTls => return None,
    }
    Some(out)
}

/// Messages that are kept as a frame come out as it.
pub fn client(message: &FrontendMessage) -> BytesMut {
    use FrontendMessage as M;
    let mut out = BytesMut::new();
    match message {
        M::Query(query) => encode::query(&mut out, query.sql.as_str()).expect("it was read"),
        M::Parse(parse) => {
            encode::parse(&mut out, parse.name.as_str(), parse.sql.as_str(), &parse.parameter_types)
                .expect("it was read");
        }
        M::Bind(bind) => return self::bind(bind),
        M::Describe(describe) => {
            encode::describe(&mut out, describe.target, describe.name.as_str()).expect("it was read");
        }
        M::Execute(execute) => {
            encode::execute(&mut out, execute.portal.as_str(), execute.max_rows).expect("it was read");
        }
        M::Close(close) => encode::close(&mut out, close.target, close.name.as_str()).expect("it was read"),
        M::FunctionCall(call) => return function_call(call),
        M::Flush => encode::flush(&mut out),
        M::Sync => encode::sync(&mut out),
        M::Terminate => encode::terminate(&mut out),
        M::CopyDone => encode::copy_done(&mut out),
        M::CopyFail(frame) | M::CopyData(frame) | M::Password(frame) => out.put_slice(frame.bytes()),
    }
    out
}

/// With binary values and formats, which the gateway's own Binds never have.
fn bind(bind: &Bind) -> BytesMut {
    framed(b'B', |out| {
        text(out, bind.portal.as_bytes());
        text(out, bind.statement.as_bytes());
        formats(out, &bind.parameter_formats);
        count(out, bind.parameters.len());
        bind.parameters.iter().for_each(|value| self::value(out, value.as_ref()));
        formats(out, &bind.result_formats);
    })
}

fn function_call(call: &FunctionCall) -> BytesMut {
    framed(b'F', |out| {
        out.put_u32(call.oid);
        formats(out, &call.argument_formats);
        count(out, call.arguments.len());
        call.arguments.iter().for_each(|argument| value(out, argument.as_ref()));
        out.put_i16(call.result_format.code());
    })
}

/// Every message, those of the login too.
pub fn server(message: &BackendMessage) -> BytesMut {
    use BackendMessage as M;
    let mut out = BytesMut::new();
    match message {
        M::Authentication(request) => return authentication(request),
        M::BackendKeyData { pid, secret } => encode::backend_key_data(&mut out, *pid, secret).expect("it was read"),
        M::NegotiateProtocolVersion { newest, options } => {
            return framed(b'v', |out| {
                out.put_u32(*newest);
                out.put_u32(u32::try_from(options.len()).expect("bounded"));
                options.iter().for_each(|name| text(out, name.as_bytes()));
            });
        }
        M::ParameterStatus { name, value, .. } => {
            encode::parameter_status(&mut out, name.as_str(), value.as_str()).expect("it was read");
        }
        M::ReadyForQuery(status) => encode::ready_for_query(&mut out, *status),
        M::RowDescription(description) => return row_description(description),
        M::DataRow(row) => out.put_slice(row.frame.bytes()),
        M::CommandComplete { tag, .. } => encode::command_complete(&mut out, tag.as_str()).expect("it was read"),
        M::EmptyQueryResponse => encode::empty_query_response(&mut out),
        M::ErrorResponse(fields) => return self::fields(fields, Fields::encode_error),
        M::NoticeResponse(fields) => return self::fields(fields, Fields::encode_notice),
        M::NotificationResponse { pid, channel, payload, .. } => {
            return framed(b'A', |out| {
                out.put_i32(*pid);
                text(out, channel.as_bytes());
                text(out, payload.as_bytes());
            });
        }
        M::ParseComplete => encode::parse_complete(&mut out),
        M::BindComplete => encode::bind_complete(&mut out),
        M::CloseComplete => encode::close_complete(&mut out),
        M::NoData => encode::no_data(&mut out),
        M::ParameterDescription { types, .. } => encode::parameter_description(&mut out, types).expect("it was read"),
        M::PortalSuspended => encode::portal_suspended(&mut out),
        M::CopyInResponse(copy) => return copy_response(b'G', copy),
        M::CopyOutResponse(copy) => return copy_response(b'H', copy),
        M::CopyBothResponse(copy) => return copy_response(b'W', copy),
        M::CopyDone => encode::copy_done(&mut out),
        M::CopyData(frame) | M::FunctionCallResponse(frame) => out.put_slice(frame.bytes()),
    }
    out
}

/// `Other` keeps its number only.
fn authentication(request: &Authentication) -> BytesMut {
    framed(b'R', |out| match request {
        Authentication::Ok => out.put_i32(0),
        Authentication::CleartextPassword => out.put_i32(3),
        Authentication::Md5 { salt } => {
            out.put_i32(5);
            out.put_slice(salt);
        }
        Authentication::Sasl { mechanisms } => {
            out.put_i32(10);
            mechanisms.iter().for_each(|name| text(out, name.as_bytes()));
            out.put_u8(0);
        }
        Authentication::SaslContinue(data) => {
            out.put_i32(11);
            out.put_slice(data);
        }
        Authentication::SaslFinal(data) => {
            out.put_i32(12);
            out.put_slice(data);
        }
        Authentication::Other(number) => out.put_i32(*number),
    })
}

pub fn sasl_initial_response(response: &SaslInitialResponse) -> BytesMut {
    framed(b'p', |out| {
        text(out, response.mechanism.as_bytes());
        value(out, response.data.as_ref());
    })
}

fn row_description(description: &RowDescription) -> BytesMut {
    framed(b'T', |out| {
        count(out, description.fields.len());
        for field in &description.fields {
            text(out, field.name.as_bytes());
            out.put_u32(field.table_oid);
            out.put_i16(field.attribute);
            out.put_u32(field.type_oid);
            out.put_i16(field.type_size);
            out.put_i32(field.type_modifier);
            out.put_i16(field.format.code());
        }
    })
}

fn copy_response(tag: u8, copy: &CopyResponse) -> BytesMut {
    framed(tag, |out| {
        out.put_u8(u8::try_from(copy.format.code()).expect("0 or 1"));
        formats(out, &copy.column_formats);
    })
}

fn fields(fields: &Fields, encode: fn(&Fields, &mut BytesMut)) -> BytesMut {
    let mut out = BytesMut::new();
    encode(fields, &mut out);
    out
}

fn framed(tag: u8, body: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut content = BytesMut::new();
    body(&mut content);
    let mut out = BytesMut::new();
    out.put_u8(tag);
    out.put_u32(u32::try_from(content.len() + 4).expect("inputs are small"));
    out.put_slice(&content);
    out
}

fn text(out: &mut BytesMut, bytes: &[u8]) {
    out.put_slice(bytes);
    out.put_u8(0);
}

fn count(out: &mut BytesMut, count: usize) {
    out.put_u16(u16::try_from(count).expect("the protocol counts in 16 bits"));
}

fn value(out: &mut BytesMut, value: Option<&Bytes>) {
    match value {
        None => out.put_i32(-1),
        Some(bytes) => {
            out.put_u32(u32::try_from(bytes.len()).expect("inputs are small"));
            out.put_slice(bytes);
        }
    }
}

fn formats(out: &mut BytesMut, formats: &[Format]) {
    count(out, formats.len());
    formats.iter().for_each(|format| out.put_i16(format.code()));
}
