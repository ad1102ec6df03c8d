//! The views of messages that are passed on unchanged must say what decoding says: the record would otherwise name
//! another statement than the one the server got.

use exeat_wire::{Answer, BackendMessage, FrontendMessage, Target, peek};

pub fn client(frame: &[u8], message: &FrontendMessage) {
    use FrontendMessage as M;
    match message {
        M::Query(query) => assert_eq!(peek::query(frame), Some(query.sql.as_bytes())),
        M::Parse(parse) => {
            let view = peek::parse(frame).expect("decoded");
            assert_eq!((view.name, view.sql), (parse.name.as_bytes(), parse.sql.as_bytes()));
        }
        M::Bind(bind) => {
            let view = peek::bind(frame).expect("decoded");
            assert_eq!((view.portal, view.statement), (bind.portal.as_bytes(), bind.statement.as_bytes()));
            assert_eq!(view.parameters.len(), bind.parameters.len());
            for (index, ((seen, binary), value)) in view.parameters.iter().zip(&bind.parameters).enumerate() {
                assert_eq!(*seen, value.as_deref());
                assert_eq!(Some(i16::from(*binary)), bind.parameter_format(index).map(|format| format.code()));
            }
        }
        M::Execute(execute) => assert_eq!(peek::execute(frame), Some(execute.portal.as_bytes())),
        M::Describe(describe) => {
            assert_eq!(peek::named(frame), Some((code(describe.target), describe.name.as_bytes())));
        }
        M::Close(close) => assert_eq!(peek::named(frame), Some((code(close.target), close.name.as_bytes()))),
        M::Flush
        | M::Sync
        | M::Terminate
        | M::CopyData(_)
        | M::CopyDone
        | M::CopyFail(_)
        | M::FunctionCall(_)
        | M::Password(_) => {}
    }
}

pub fn server(frame: &[u8], message: &BackendMessage) {
    let tag = frame.first().copied().expect("a frame has a type");
    let by_tag = Answer::from_tag(tag).expect("decoded");
    match message {
        BackendMessage::ErrorResponse(fields) => {
            let view = peek::error(frame);
            assert_eq!(view.fatal, fields.ends_connection());
            assert_eq!(view.sqlstate, fields.get_bytes(b'C'));
            assert_eq!(Answer::of(message), Answer::ErrorResponse { fatal: view.fatal });
        }
        _ => assert_eq!(Answer::of(message), by_tag),
    }
    if let BackendMessage::CommandComplete { tag, .. } = message {
        assert_eq!(peek::command_tag(frame), Some(tag.as_bytes()));
    }
    assert_eq!(by_tag.name(), message.name());
}

fn code(target: Target) -> u8 {
    match target {
        Target::Statement => b'S',
        Target::Portal => b'P',
    }
}
