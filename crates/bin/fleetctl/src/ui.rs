//! Everything a person or a program reads. stdout is data, stderr everything else.

pub mod events;
pub mod plan;
pub mod style;
pub mod table;
