//! Files of the project: what each code means.

use super::Explanation;
use crate::code;

pub(crate) const ALL: &[Explanation] = &[
    Explanation {
        code: code::FILE_MISSING,
        title: "A file that is not there",
        text: r#"Something names a file or folder of the project that does not exist. Paths are relative to the folder of `fleet.kdl`, also in included files.

```kdl
org { directory "org/peple.csv" }
```

Create it, or correct the path. Files that an ignore file excludes count as missing."#,
    },
    Explanation {
        code: code::FILE_OUTSIDE,
        title: "A path that leaves the project",
        text: r#"A fleet is made of the files below the folder of `fleet.kdl` and of nothing else: only then do two checkouts build the same. Absolute paths and paths that climb out with `..` are refused.

```kdl
include "../shared/people.kdl"
```

Copy the file into the project, or make the project's root the folder that holds both."#,
    },
    Explanation {
        code: code::FILE_BAD_PATH,
        title: "Not a usable path",
        text: r#"The path is empty, holds a backslash or a NUL byte, or would make the whole project a build context.

```kdl
include "org\\people.kdl"
```

Write a path below the folder of `fleet.kdl`, with `/` between folders."#,
    },
    Explanation {
        code: code::FILE_UNREADABLE,
        title: "A file that cannot be read",
        text: r#"The file is there, but it may not be read, is a link that leaves the project, or is neither a file nor a folder. The message says which. What stands below the templates, a build context or a copy to be rendered is held to the same: it would be left out without a word.

```kdl
include "link-to-etc.kdl"
```

Make it a regular file that you may read, or leave it out with a line in the folder's `.fleetignore`."#,
    },
    Explanation {
        code: code::FILE_WRONG_KIND,
        title: "A folder where a file is needed, or the other way round",
        text: r#"What is at the path is of another kind than what uses it needs; a directory of people is a `.csv` or a `.json`.

```kdl
org { directory "org" }
```

Name the file in the folder, or the folder that holds the file."#,
    },
    Explanation {
        code: code::FILE_NOT_TEXT,
        title: "A file that is not UTF-8",
        text: r#"Included files and people directories are read as UTF-8 text. Spreadsheets often export another encoding.

```kdl
org { directory "people.csv" }
```

Save it as UTF-8."#,
    },
];
