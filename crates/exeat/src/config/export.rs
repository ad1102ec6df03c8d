//! `audit.export`: who else reads the record while it is written.

use std::collections::BTreeSet;

use exeat_policy::document::Node;

use super::Reading;
use super::identity::optional;
use crate::export::{ExportConfig, ExportKind, PostConfig, SyslogConfig, Transport};

/// Each is a task that reads the whole log.
const EXPORTS_MAX: usize = 16;

const NAME_BYTES_MAX: usize = 63;

impl Reading<'_> {
    pub(super) fn exports(&mut self, node: &Node) -> Option<Vec<ExportConfig>> {
        let items = node.as_list(&mut self.diags)?;
        if items.len() > EXPORTS_MAX {
            self.diags.error(&node.span, format!("`export` has {} entries, the limit is {EXPORTS_MAX}", items.len()));
            return None;
        }
        let read: Vec<Option<ExportConfig>> = items.iter().map(|item| self.export(item)).collect();
        let mut names = BTreeSet::new();
        for (item, export) in items.iter().zip(&read) {
            if let Some(export) = export
                && !names.insert(export.name.clone())
            {
                // One would go on where the other is.
                self.diags
                    .error(&item.span, format!("two entries of `export` have the name \"{}\"", export.name))
                    .hide_source()
                    .help("give each a `name` of its own");
                return None;
            }
        }
        read.into_iter().collect()
    }

    fn export(&mut self, node: &Node) -> Option<ExportConfig> {
        let mut reader = node.mapping(&mut self.diags)?;
        let name = optional(&mut reader, "name", |node| self.export_name(node));
        let (syslog, http, otlp) = (reader.optional("syslog"), reader.optional("http"), reader.optional("otlp"));
        reader.finish(&mut self.diags);
        let (default_name, kind) = match (syslog, http, otlp) {
            (Some(node), None, None) => ("syslog", ExportKind::Syslog(self.syslog(node)?)),
            (None, Some(node), None) => ("http", ExportKind::Http(self.posted(node)?)),
            (None, None, Some(node)) => ("otlp", ExportKind::Otlp(self.posted(node)?)),
            _ => {
                self.diags
                    .error(&node.span, "an entry of `export` says one kind of receiver")
                    .hide_source()
                    .help("write syslog: {address: tls://HOST:PORT}, http: {url: SECRET} or otlp: {url: SECRET}");
                return None;
            }
        };
        Some(ExportConfig { name: name?.unwrap_or_else(|| default_name.to_owned()), kind })
    }

    fn syslog(&mut self, node: &Node) -> Option<SyslogConfig> {
        let mut reader = node.mapping(&mut self.diags)?;
        let address = reader.required("address", &mut self.diags).and_then(|node| self.syslog_address(node));
        let ca = optional(&mut reader, "ca", |node| self.path(node));
        reader.finish(&mut self.diags);
        let (transport, host, port) = address?;
        Some(SyslogConfig { transport, host, port, ca: ca? })
    }

    fn syslog_address(&mut self, node: &Node) -> Option<(Transport, String, u16)> {
        let text = node.as_string(&mut self.diags)?;
        let parsed = text.split_once("://").and_then(|(scheme, rest)| {
            let transport = match scheme {
                "tcp" => Transport::Tcp,
                "tls" => Transport::Tls,
                "udp" => Transport::Udp,
                _ => return None,
            };
            let (host, port) = rest.rsplit_once(':')?;
            let is_plain = !host.is_empty() && !host.contains(['/', '@']);
            is_plain.then_some((transport, host.to_owned(), port.parse().ok()?))
        });
        if parsed.is_none() {
            self.diags
                .error(&node.span, format!("`{text}` is no address of a syslog receiver"))
                .help("write tls://HOST:PORT, tcp://HOST:PORT or udp://HOST:PORT");
        }
        parsed
    }

    /// A URL may hold a token, and so may headers.
    fn posted(&mut self, node: &Node) -> Option<PostConfig> {
        let mut reader = node.mapping(&mut self.diags)?;
        let url = reader.required("url", &mut self.diags).and_then(|node| self.secret(node));
        let headers = optional(&mut reader, "headers", |node| {
            let entries = node.entries(&mut self.diags)?;
            let read = entries.iter().map(|entry| Some((entry.key.clone(), self.secret(&entry.value)?)));
            read.collect::<Vec<Option<_>>>().into_iter().collect::<Option<Vec<_>>>()
        });
        let ca = optional(&mut reader, "ca", |node| self.path(node));
        reader.finish(&mut self.diags);
        Some(PostConfig { url: url?, headers: headers?.unwrap_or_default(), ca: ca? })
    }

    /// It is a file's name, too.
    fn export_name(&mut self, node: &Node) -> Option<String> {
        let name = node.as_string(&mut self.diags)?;
        let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if plain && name.len() <= NAME_BYTES_MAX {
            return Some(name.to_owned());
        }
        let rule = format!("letters, digits, `_` and `-`, at most {NAME_BYTES_MAX}");
        self.diags.error(&node.span, format!("`{name}` is no name for an export")).help(rule);
        None
    }
}
