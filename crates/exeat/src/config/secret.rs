//! Where a secret is, as configured: `{env: …}`, `{file: …}` or `{command: […]}`. A literal is refused, and the
//! refusal does not show it.

use exeat_policy::document::{Node, Value};
use exeat_store::secret::SecretSource;

use super::Reading;

impl Reading<'_> {
    pub(super) fn secret(&mut self, node: &Node) -> Option<SecretSource> {
        if !matches!(node.value, Value::Mapping(_)) {
            self.diags.error(&node.span, format!("{} names no source of a secret", node.subject())).hide_source().help(
                "secrets do not stand in this file: write {env: NAME}, {file: PATH} or {command: [PROGRAM, ARGUMENT]}",
            );
            return None;
        }
        let mut reader = node.mapping(&mut self.diags)?;
        let env = reader.optional("env");
        let file = reader.optional("file");
        let command = reader.optional("command");
        reader.finish(&mut self.diags);
        match (env, file, command) {
            (Some(env), None, None) => self.variable(env),
            (None, Some(file), None) => self.path(file).map(SecretSource::File),
            (None, None, Some(command)) => self.command(command),
            _ => {
                self.diags
                    .error(&node.span, format!("{} must name exactly one source", node.subject()))
                    .hide_source()
                    .help("one of env, file and command");
                None
            }
        }
    }

    /// A program and its arguments; unlike other lists, one word may stand there twice.
    fn command(&mut self, node: &Node) -> Option<SecretSource> {
        let items = node.as_list(&mut self.diags)?;
        if items.is_empty() {
            self.diags.error(&node.span, "`command` is an empty list").help("write [PROGRAM, ARGUMENT]");
            return None;
        }
        let words: Vec<Option<&str>> = items.iter().map(|item| item.as_text(&mut self.diags)).collect();
        let words: Option<Vec<String>> = words.into_iter().map(|word| word.map(str::to_owned)).collect();
        words.map(SecretSource::Command)
    }

    fn variable(&mut self, node: &Node) -> Option<SecretSource> {
        let name = node.as_string(&mut self.diags)?;
        if name.contains('=') {
            self.diags.error(&node.span, "the name of an environment variable holds `=`").hide_source();
            return None;
        }
        Some(SecretSource::Env(name.to_owned()))
    }
}
