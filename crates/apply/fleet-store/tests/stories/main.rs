//! Stories about the store in a project. One test program, since each more would be linked by itself.

mod collection;
mod processes;
mod project;
