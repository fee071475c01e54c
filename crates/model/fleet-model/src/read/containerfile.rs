//! Containerfiles as far as a suggestion needs them: has it a RUN, and which nodes say the same?

use std::fmt::Write as _;

use crate::{containerfile::instructions, source::RelPath};

/// Does it run anything while it is built?
pub(crate) fn has_run(text: &str) -> bool {
    instructions(text).iter().any(|one| one.word == "RUN")
}

/// The nodes that say the same as a Containerfile without RUN; `None` where some step has no node that does.
pub(crate) fn suggestion(text: &str, context: &RelPath) -> Option<String> {
    let mut nodes = Nodes { context, workdir: None, lines: Vec::new(), bases: 0 };
    for one in instructions(text) {
        nodes.add(&one.word, &one.rest)?;
    }
    let mut help = String::from("the same, assembled without an engine, byte for byte the same everywhere:");
    for line in (nodes.bases == 1).then_some(nodes.lines)? {
        write!(help, "\n    {line}").ok()?;
    }
    Some(help)
}

struct Nodes<'a> {
    context: &'a RelPath,
    workdir: Option<String>,
    lines: Vec<String>,
    bases: usize,
}

impl Nodes<'_> {
    fn add(&mut self, word: &str, rest: &str) -> Option<()> {
        // Variables are filled in by the engine alone.
        if rest.contains('$') {
            return None;
        }
        let line = match word {
            "FROM" => {
                self.bases += 1;
                format!("base {}", quoted(plain(rest)?))
            }
            "COPY" | "ADD" => return self.copy(word, rest),
            "ENV" => format!("env {}", environment(rest)?),
            "ENTRYPOINT" => format!("entrypoint {}", vector(rest)?),
            "CMD" => format!("command {}", vector(rest)?),
            "WORKDIR" => {
                self.workdir = Some(plain(rest)?.to_owned()).filter(|path| path.starts_with('/'));
                format!("workdir {}", quoted(self.workdir.as_deref()?))
            }
            "USER" => format!("run-as {}", quoted(plain(rest)?)),
            // Says something to people only.
            "EXPOSE" | "MAINTAINER" => return Some(()),
            _ => return None,
        };
        self.lines.push(line);
        Some(())
    }

    fn copy(&mut self, word: &str, rest: &str) -> Option<()> {
        let words: Vec<&str> = rest.split_whitespace().collect();
        let (to, from) = words.split_last().filter(|(_, from)| !from.is_empty())?;
        // Flags, patterns, JSON lists, here-documents, and for ADD what it would fetch or unpack.
        let odd = |text: &&str| text.starts_with("--") || text.contains(['*', '?', '[', '"', ':', '<']);
        if words.iter().any(odd) || (word == "ADD" && from.iter().any(|from| from.contains(".t"))) {
            return None;
        }
        let to = match to.strip_prefix('/') {
            Some(_) => (*to).to_owned(),
            None => format!("{}/{}", self.workdir.as_deref()?.trim_end_matches('/'), to.trim_start_matches("./")),
        };
        for from in from {
            let path = match from.trim_start_matches("./").trim_end_matches('/') {
                "" | "." => self.context.clone(),
                inside => self.context.join(inside).ok()?,
            };
            // Into a folder: a file keeps its name, a folder's content lands in it. Only a file tells itself by a dot.
            let name = path.as_str().rsplit('/').next().unwrap_or_default();
            let file = name.contains('.') && !from.ends_with('/') && path != *self.context;
            let target = if file && to.ends_with('/') { format!("{to}{name}") } else { to.clone() };
            self.lines.push(format!("copy {} to={}", quoted(path.as_str()), quoted(&target)));
        }
        Some(())
    }
}

/// One word.
fn plain(text: &str) -> Option<&str> {
    (text.split_whitespace().count() == 1).then_some(text)
}

/// A text in KDL.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// `["a", "b"]` as arguments; the form for shells has no node.
fn vector(text: &str) -> Option<String> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let mut words = Vec::new();
    for part in inner.split(',') {
        let word = part.trim().strip_prefix('"')?.strip_suffix('"')?;
        words.push(quoted((!word.contains(['"', '\\'])).then_some(word)?));
    }
    Some(words.join(" "))
}

/// `A=1 B="x y"`, or the old `A 1`.
fn environment(text: &str) -> Option<String> {
    let first = text.split_whitespace().next()?;
    if !first.contains('=') {
        let value = text[first.len()..].trim();
        return (!value.is_empty()).then(|| format!("{first}={}", quoted(value)));
    }
    let mut pairs = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let (value, after) = match after.strip_prefix('"') {
            Some(open) => open.split_once('"')?,
            None => after.split_once(char::is_whitespace).unwrap_or((after, "")),
        };
        if name.contains(char::is_whitespace) || value.contains('\\') {
            return None;
        }
        pairs.push(format!("{name}={}", quoted(value)));
        rest = after.trim_start();
    }
    Some(pairs.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Option<Vec<String>> {
        let context = RelPath::new("images/web").ok()?;
        let help = suggestion(text, &context)?;
        Some(help.lines().skip(1).map(|line| line.trim().to_owned()).collect())
    }

    #[test]
    fn every_step_becomes_the_node_that_says_the_same() {
        let text = "# web\nFROM docker.io/library/nginx:1.29\nWORKDIR /srv\nCOPY site ./site\nCOPY a.conf b.conf /etc/app/\n\
                    ENV A=1 \\\n  B=\"x y\"\nENV C d e\nEXPOSE 80\nUSER www\nENTRYPOINT [\"/bin/web\", \"-v\"]\nCMD [\"serve\"]\n";
        let expected = [
            "base \"docker.io/library/nginx:1.29\"",
            "workdir \"/srv\"",
            "copy \"images/web/site\" to=\"/srv/site\"",
            "copy \"images/web/a.conf\" to=\"/etc/app/a.conf\"",
            "copy \"images/web/b.conf\" to=\"/etc/app/b.conf\"",
            "env A=\"1\" B=\"x y\"",
            "env C=\"d e\"",
            "run-as \"www\"",
            "entrypoint \"/bin/web\" \"-v\"",
            "command \"serve\"",
        ];
        assert_eq!(lines(text), Some(expected.map(str::to_owned).to_vec()));
    }

    #[test]
    fn what_no_node_says_is_not_suggested() {
        for text in [
            "FROM a.test/b:1 AS build\nFROM a.test/c:1\nCOPY --from=build /x /x",
            "FROM $BASE",
            "FROM a.test/b:1\nADD site.tar.gz /srv",
            "FROM a.test/b:1\nCOPY *.conf /etc/",
            "FROM a.test/b:1\nCMD serve --all",
            "FROM a.test/b:1\nHEALTHCHECK NONE",
            "FROM a.test/b:1\nCOPY x y",
            "FROM a.test/b:1\nCOPY <<EOF /x\ntext\nEOF",
            "ENV A=1",
        ] {
            assert_eq!(lines(text), None, "{text}");
        }
    }

    #[test]
    fn a_run_is_seen_however_it_is_written() {
        assert!(has_run("FROM x\n  run\ttrue") && has_run("FROM x\nENV A=1 \\\n B=2\nRUN true"));
        assert!(!has_run("FROM x\n# RUN true\nENV A=\\\nRUN"));
    }
}
