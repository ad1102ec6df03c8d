//! Admission: may these exact bytes go upstream? The only place that builds an `Admitted` or a `Control`.
//! Invariant: the text in the bytes is the text the permit was given for, and every error path here refuses.

use std::sync::Arc;

use exeat_wire::{Bind, Close, Describe, Execute, Frame, FunctionCall, Parse, Query};

use crate::evaluate::Permit;
use crate::function_call::function_text;
use crate::plan::CopyStream;
use crate::refusal::{Refusal, RefusalCode};

/// Proof that policy admitted these exact bytes. Not `Clone`: one admission, one send.
#[derive(Debug)]
pub struct Admitted {
    frame: Frame,
    permit: Arc<Permit>,
}

impl Admitted {
    pub fn permit(&self) -> &Arc<Permit> {
        &self.permit
    }

    /// For the one function that writes a client's statement upstream.
    pub fn into_frame(self) -> Frame {
        self.frame
    }
}

/// A message that carries no statement of its own: it speaks of one already admitted, or of none.
#[derive(Debug)]
pub struct Control {
    frame: Frame,
}

impl Control {
    pub fn into_frame(self) -> Frame {
        self.frame
    }

    /// Describe names a statement or portal that was admitted when it was made.
    pub fn describe(message: Describe) -> Self {
        Self { frame: message.frame }
    }

    pub fn close(message: Close) -> Self {
        Self { frame: message.frame }
    }

    /// Runs a portal whose Bind was admitted under this permit.
    pub fn execute(message: Execute, _bound_under: &Permit) -> Self {
        Self { frame: message.frame }
    }
}

/// Leave to send COPY data on: the statement that runs was admitted as one that takes it from the client.
#[derive(Debug, Clone)]
pub struct CopyPass {
    _admitted: (),
}

impl CopyPass {
    pub fn of(copy: CopyStream) -> Option<Self> {
        match copy {
            CopyStream::In => Some(Self { _admitted: () }),
            CopyStream::None | CopyStream::Out => None,
        }
    }
}

#[derive(Debug)]
pub enum Verdict {
    Forward(Admitted),
    Refuse(Refusal),
}

pub fn admit_query(message: Query, permit: &Arc<Permit>) -> Verdict {
    admit((message.sql.as_str() == permit.sql(), true), message.frame, permit)
}

pub fn admit_parse(message: Parse, permit: &Arc<Permit>) -> Verdict {
    admit((message.sql.as_str() == permit.sql(), false), message.frame, permit)
}

/// `sql` is the text of the Parse that made the statement this Bind names.
pub fn admit_bind(message: Bind, sql: &str, permit: &Arc<Permit>) -> Verdict {
    admit((sql == permit.sql(), true), message.frame, permit)
}

pub fn admit_function_call(message: FunctionCall, permit: &Arc<Permit>) -> Verdict {
    admit((function_text(message.oid) == permit.sql(), true), message.frame, permit)
}

/// `is_run`: to run, or to be bound for it; preparing runs nothing.
fn admit((same_text, is_run): (bool, bool), frame: Frame, permit: &Arc<Permit>) -> Verdict {
    if !same_text {
        let reason = "the statement differs from the one that was analysed";
        return Verdict::Refuse(Refusal::new(RefusalCode::NotEnforceable, reason));
    }
    // Whoever lets it through brings the permit that an approval has left.
    if is_run && permit.is_held() {
        let reason = "a rule holds this statement, and nobody has let it through";
        return Verdict::Refuse(Refusal::new(RefusalCode::NotEnforceable, reason));
    }
    Verdict::Forward(Admitted { frame, permit: Arc::clone(permit) })
}
