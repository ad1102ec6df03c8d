//! What a message says: which event, how the request stands, and of its card what a decision needs. Never a parameter's
//! value and never a row: a chat keeps what it is told. Whoever decides looks at the gateway.

use exeat_console::view;
use exeat_enforce::card::{Card, CardParameter};
use exeat_store::state::{Listed, Message, Request, Told};
use serde_json::{Value, json};

/// A message whose request was read.
pub(super) struct Said<'a> {
    pub(super) gateway: &'a str,
    pub(super) message: &'a Message,
    pub(super) request: &'a Request,
    /// Without values; `None` where another version of the gateway made it.
    pub(super) card: Option<Card>,
}

impl<'a> Said<'a> {
    pub(super) fn new(gateway: &'a str, message: &'a Message, request: &'a Request) -> Self {
        let card = Card::decoded(&request.card).map(without_values);
        Self { gateway, message, request, card }
    }

    /// The event's name.
    pub(super) fn event(&self) -> &'static str {
        match self.message.told {
            Told::Asked => "approval.requested",
            Told::Closed => "approval.closed",
            Told::SecondGroup => "approval.escalated",
            Told::Alert => "approval.glass_broken",
            Told::Stop => "approval.revoked",
        }
    }

    /// The body of a webhook.
    pub(super) fn to_json(&self) -> Value {
        let Request { id, ask, terms, progress, changed_at, .. } = self.request;
        let line = Listed {
            id: id.clone(),
            ask: ask.clone(),
            terms: terms.clone(),
            progress: progress.clone(),
            changed_at: *changed_at,
        };
        json!({
            "type": self.event(),
            "timestamp": view::time(self.message.at),
            "data": {
                "gateway": self.gateway,
                "approval": view::listed(&line),
                "card": self.card.as_ref().map(|card| json!(card)),
            },
        })
    }
}

fn without_values(card: Card) -> Card {
    let hidden = |parameter: CardParameter| match parameter {
        CardParameter::Text(text) => CardParameter::Binary { bytes: u64::try_from(text.len()).unwrap_or(u64::MAX) },
        CardParameter::Null | CardParameter::Binary { .. } => parameter,
    };
    let parameters = card.parameters.into_iter().map(hidden).collect();
    Card { parameters, sample: None, ..card }
}
