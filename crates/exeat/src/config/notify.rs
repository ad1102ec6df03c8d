//! `notify:` — who is told of statements that wait for humans. Addresses are secrets: a chat's holds its token.

use std::collections::BTreeSet;
use std::path::PathBuf;

use exeat_policy::document::Node;
use exeat_store::secret::SecretSource;

use super::Reading;
use super::identity::optional;
use crate::notify::{Destination, Kind};

/// Every request is told to each of them.
const DESTINATIONS_MAX: usize = 16;

const NAME_BYTES_MAX: usize = 63;

/// What every kind has.
struct Place {
    url: SecretSource,
    ca: Option<PathBuf>,
}

impl Reading<'_> {
    pub(super) fn notify(&mut self, node: &Node) -> Option<Vec<Destination>> {
        let items = node.as_list(&mut self.diags)?;
        if items.len() > DESTINATIONS_MAX {
            self.diags
                .error(&node.span, format!("`notify` has {} entries, the limit is {DESTINATIONS_MAX}", items.len()));
            return None;
        }
        let read: Vec<Option<Destination>> = items.iter().map(|item| self.destination(item)).collect();
        let mut names = BTreeSet::new();
        for (item, destination) in items.iter().zip(&read) {
            if let Some(destination) = destination
                && !names.insert(destination.name.as_str())
            {
                // What waits for one would be sent to the other.
                self.diags
                    .error(&item.span, format!("two entries of `notify` have the name \"{}\"", destination.name))
                    .hide_source()
                    .help("give each a `name` of its own");
                return None;
            }
        }
        drop(names);
        read.into_iter().collect()
    }

    fn destination(&mut self, node: &Node) -> Option<Destination> {
        let mut reader = node.mapping(&mut self.diags)?;
        let name = optional(&mut reader, "name", |node| self.destination_name(node));
        let (webhook, slack) = (reader.optional("webhook"), reader.optional("slack"));
        reader.finish(&mut self.diags);
        let (default_name, kind, place) = match (webhook, slack) {
            (Some(node), None) => {
                let (place, secret) = self.webhook(node)?;
                ("webhook", Kind::Webhook { secret }, place)
            }
            (None, Some(node)) => ("slack", Kind::Slack, self.slack(node)?),
            (None, None) | (Some(_), Some(_)) => {
                self.diags
                    .error(&node.span, "an entry of `notify` says one kind of destination")
                    .hide_source()
                    .help("write webhook: {url: SECRET, secret: SECRET} or slack: {url: SECRET}");
                return None;
            }
        };
        let Place { url, ca } = place;
        Some(Destination { name: name?.unwrap_or_else(|| default_name.to_owned()), kind, url, ca })
    }

    fn webhook(&mut self, node: &Node) -> Option<(Place, SecretSource)> {
        let mut reader = node.mapping(&mut self.diags)?;
        let url = reader.required("url", &mut self.diags).and_then(|node| self.secret(node));
        let secret = reader.required("secret", &mut self.diags).and_then(|node| self.secret(node));
        let ca = optional(&mut reader, "ca", |node| self.path(node));
        reader.finish(&mut self.diags);
        Some((Place { url: url?, ca: ca? }, secret?))
    }

    fn slack(&mut self, node: &Node) -> Option<Place> {
        let mut reader = node.mapping(&mut self.diags)?;
        let url = reader.required("url", &mut self.diags).and_then(|node| self.secret(node));
        let ca = optional(&mut reader, "ca", |node| self.path(node));
        reader.finish(&mut self.diags);
        Some(Place { url: url?, ca: ca? })
    }

    fn destination_name(&mut self, node: &Node) -> Option<String> {
        let name = node.as_string(&mut self.diags)?;
        let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if plain && name.len() <= NAME_BYTES_MAX {
            return Some(name.to_owned());
        }
        let rule = format!("letters, digits, `_` and `-`, at most {NAME_BYTES_MAX}");
        self.diags.error(&node.span, format!("`{name}` is no name for a destination")).help(rule);
        None
    }
}
