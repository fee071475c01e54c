//! Plain log lines on stderr: `level message key=value`. No timestamps (the engine adds them), no colours.
//!
//! Deliberately absent: any way to log a [`fleet_secret::Secret`], which has no `Display`.

use std::fmt::Display;

/// Writes one line; `pairs` are shown in order, values with spaces in quotes.
pub fn line(level: &str, message: &str, pairs: &[(&str, &dyn Display)]) {
    eprintln!("{}", render(level, message, pairs));
}

/// Something that happened as it should.
pub fn info(message: &str, pairs: &[(&str, &dyn Display)]) {
    line("info", message, pairs);
}

/// Something that a person may want to know; work goes on.
pub fn warn(message: &str, pairs: &[(&str, &dyn Display)]) {
    line("warn", message, pairs);
}

/// Something that stops the agent.
pub fn error(message: &str, pairs: &[(&str, &dyn Display)]) {
    line("error", message, pairs);
}

fn render(level: &str, message: &str, pairs: &[(&str, &dyn Display)]) -> String {
    let mut text = format!("{level} {message}");
    for (key, value) in pairs {
        let value = value.to_string().replace(['\n', '\r'], " ");
        let quoted = value.is_empty() || value.contains(|c: char| c.is_whitespace() || c == '"');
        text.push_str(&if quoted { format!(" {key}={value:?}") } else { format!(" {key}={value}") });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line_and_values_with_spaces_are_quoted() {
        let text = render("warn", "cannot join", &[("room", &"#a:b"), ("why", &"not\ninvited")]);
        assert_eq!(text, "warn cannot join room=#a:b why=\"not invited\"");
    }
}
