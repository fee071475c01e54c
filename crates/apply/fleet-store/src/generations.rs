//! Generations in `.fleet/`: one object per apply, made exactly once.

use std::{path::PathBuf, sync::Arc};

use fleet_plan::Generation;
use futures::executor::block_on;
use object_store::{Error, ObjectStore, local::LocalFileSystem, path::Path};
use serde::{Serialize, de::DeserializeOwned};

use crate::{Store, objects::unescaped, shelf::Shelf};

/// How hard to compress: generations are small and written once.
const LEVEL: i32 = 9;

/// A generation's number and where it belongs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NumberedGeneration {
    /// Environment.
    pub environment: String,
    /// Number.
    pub number: u64,
}

/// Why generations could not be written or listed.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// Somebody else wrote that number first. Theirs stays as it is.
    #[error("generation {number} of {environment} is there already: somebody else recorded an apply at the same time")]
    Taken {
        /// Of which environment.
        environment: String,
        /// Its number.
        number: u64,
    },
    /// The object store refused.
    #[error("cannot {doing} the generations of {environment}: {why}")]
    Store {
        /// `read`, `write`, `list`.
        doing: &'static str,
        /// Of which environment.
        environment: String,
        /// Why.
        why: String,
    },
    /// One that counts cannot be read. Nothing was removed.
    #[error(
        "generation {number} of {environment} cannot be read, so what it needs is unknown and nothing was removed: use the \
         fleetctl that wrote it, or remove its object and run gc again"
    )]
    Damaged {
        /// Of which environment.
        environment: String,
        /// Its number.
        number: u64,
    },
    /// The generation has no JSON form or could not be compressed.
    #[error("cannot encode generation {number}: {why}")]
    Encode {
        /// Which.
        number: u64,
        /// Why.
        why: String,
    },
}

pub(crate) fn failed(doing: &'static str, environment: &str) -> impl Fn(Error) -> GenerationError {
    let environment = environment.to_owned();
    move |error| GenerationError::Store { doing, environment: environment.clone(), why: error.to_string() }
}

impl Store {
    /// Records a generation under the next free number of its environment and returns it with that number: the one it
    /// comes with is not looked at. Two processes never get one number.
    ///
    /// # Errors
    /// [`GenerationError`].
    pub fn add_generation(&self, mut generation: Generation) -> Result<Generation, GenerationError> {
        let environment = generation.environment.clone();
        generation.number = self.generation_numbers(&environment)?.last().map_or(1, |last| last + 1);
        loop {
            match self.write_generation(&generation) {
                Ok(()) => return Ok(generation),
                Err(GenerationError::Taken { .. }) => generation.number += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Records a generation under the number that it has.
    ///
    /// # Errors
    /// [`GenerationError::Taken`] where there is one of that number; otherwise see [`GenerationError`].
    pub fn write_generation(&self, generation: &Generation) -> Result<(), GenerationError> {
        let Generation { environment, number, .. } = generation;
        let shelf = self.shelf(environment)?;
        let bytes = encode(*number, generation)?;
        match block_on(shelf.put_new(*number, bytes)).map_err(failed("write", environment))? {
            true => Ok(()),
            false => Err(GenerationError::Taken { environment: environment.clone(), number: *number }),
        }
    }

    /// Keeps a copy of a generation of elsewhere in a folder of its own, over the one that is there.
    pub(crate) fn copy_generation(&self, folder: &str, generation: &Generation) -> Result<(), GenerationError> {
        let bytes = encode(generation.number, generation)?;
        block_on(self.shelf(folder)?.put(generation.number, bytes)).map_err(failed("copy", folder))
    }

    /// The generation with this number; `None` when it is not there or is damaged (which is noted).
    ///
    /// # Errors
    /// [`GenerationError::Store`].
    pub fn generation(&self, environment: &str, number: u64) -> Result<Option<Generation>, GenerationError> {
        let read = block_on(self.shelf(environment)?.get(number)).map_err(failed("read", environment))?;
        let Some(bytes) = read else { return Ok(None) };
        match decode(&bytes) {
            Ok(generation) => Ok(Some(generation)),
            Err(why) => {
                self.note(format!("generation {number} of {environment} cannot be read ({why}); it was skipped"));
                Ok(None)
            }
        }
    }

    /// The last generation that can be read.
    ///
    /// # Errors
    /// [`GenerationError::Store`].
    pub fn latest_generation(&self, environment: &str) -> Result<Option<Generation>, GenerationError> {
        for number in self.generation_numbers(environment)?.into_iter().rev() {
            if let Some(generation) = self.generation(environment, number)? {
                return Ok(Some(generation));
            }
        }
        Ok(None)
    }

    /// The numbers of an environment's generations, ascending. Files with other names are noted.
    ///
    /// # Errors
    /// [`GenerationError::Store`].
    pub fn generation_numbers(&self, environment: &str) -> Result<Vec<u64>, GenerationError> {
        // A store that was only opened to read may not have the folder.
        if !self.root().join("generations").is_dir() {
            return Ok(Vec::new());
        }
        let listed = block_on(self.shelf(environment)?.list()).map_err(failed("list", environment))?;
        for stranger in listed.strangers {
            self.note(format!("{stranger} is not a generation; it was left alone"));
        }
        Ok(listed.numbers)
    }

    /// Every environment that has generations.
    ///
    /// # Errors
    /// [`GenerationError::Store`].
    pub fn generation_environments(&self) -> Result<Vec<String>, GenerationError> {
        let objects = self.generation_store("every environment")?;
        let listed = block_on(objects.list_with_delimiter(None)).map_err(failed("list", "every environment"))?;
        Ok(listed.common_prefixes.iter().filter_map(|p| p.filename().map(unescaped)).collect())
    }

    /// Removes one; no error when it is gone already.
    pub(crate) fn remove_generation(&self, which: &NumberedGeneration) -> Result<(), GenerationError> {
        let removed = block_on(self.shelf(&which.environment)?.remove(which.number));
        removed.map_err(failed("remove", &which.environment))
    }

    /// Where a generation is kept, for messages.
    pub(crate) fn generation_file(&self, which: &NumberedGeneration) -> PathBuf {
        let place = Path::from_iter([which.environment.as_str()]).join(format!("{:08}.json.zst", which.number));
        self.root().join("generations").join(place.to_string())
    }

    fn shelf(&self, environment: &str) -> Result<Shelf, GenerationError> {
        Ok(Shelf::new(self.generation_store(environment)?, Path::from_iter([environment])))
    }

    fn generation_store(&self, environment: &str) -> Result<Arc<dyn ObjectStore>, GenerationError> {
        let store = LocalFileSystem::new_with_prefix(self.root().join("generations"))
            .map_err(failed("open", environment))?
            .with_fsync(true);
        Ok(Arc::new(store))
    }
}

pub(crate) fn encode(number: u64, record: &impl Serialize) -> Result<Vec<u8>, GenerationError> {
    let failed = |why: String| GenerationError::Encode { number, why };
    let json = serde_json::to_vec(record).map_err(|e| failed(e.to_string()))?;
    zstd::encode_all(json.as_slice(), LEVEL).map_err(|e| failed(e.to_string()))
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let json = zstd::decode_all(bytes).map_err(|e| e.to_string())?;
    serde_json::from_slice(&json).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Any = Result<(), Box<dyn std::error::Error>>;

    fn generation(environment: &str) -> Generation {
        Generation {
            schema: 1,
            number: 0,
            environment: environment.to_owned(),
            finished: 1,
            who: None,
            host: None,
            objects: [].into(),
            outputs: [].into(),
            entries: Vec::new(),
        }
    }

    #[test]
    fn numbers_grow_per_environment_and_generations_come_back() -> Any {
        let project = tempfile::tempdir()?;
        let store = Store::open(project.path())?;
        assert_eq!(store.latest_generation("local")?, None);
        let first = store.add_generation(generation("local"))?;
        let second = store.add_generation(generation("local"))?;
        store.add_generation(generation("eu west/2"))?;
        assert_eq!((first.number, second.number), (1, 2));
        assert_eq!(store.generation("local", 1)?, Some(first));
        assert_eq!(store.latest_generation("local")?, Some(second));
        assert_eq!(store.generation_numbers("eu west/2")?, [1]);
        assert_eq!(store.generation_environments()?, ["eu west/2", "local"]);
        Ok(())
    }

    #[test]
    fn a_generation_of_before_people_were_recorded_is_read() -> Any {
        let project = tempfile::tempdir()?;
        let store = Store::open(project.path())?;
        store.add_generation(Generation { who: Some("ada".to_owned()), ..generation("local") })?;
        let old = r#"{"schema": 1, "number": 2, "environment": "local", "finished": 7, "objects": {}, "outputs": {}, "entries": []}"#;
        let path = store.root().join("generations/local/00000002.json.zst");
        std::fs::write(path, zstd::encode_all(old.as_bytes(), LEVEL)?)?;
        let who = |number| store.generation("local", number).map(|found| found.map(|one| one.who));
        assert_eq!((who(1)?, who(2)?), (Some(Some("ada".to_owned())), Some(None)));
        Ok(())
    }

    #[test]
    fn eight_at_once_get_eight_numbers() -> Any {
        let project = tempfile::tempdir()?;
        let store = Store::open(project.path())?;
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| store.add_generation(generation("local")).map(drop).unwrap_or_else(|e| panic!("{e}")));
            }
        });
        assert_eq!(store.generation_numbers("local")?, (1..=8).collect::<Vec<_>>());
        Ok(())
    }

    #[test]
    fn a_torn_generation_is_skipped_and_its_number_not_used_again() -> Any {
        let project = tempfile::tempdir()?;
        let store = Store::open(project.path())?;
        store.add_generation(generation("local"))?;
        let folder = store.root().join("generations/local");
        std::fs::write(folder.join("00000002.json.zst"), b"(torn")?;
        std::fs::write(folder.join("notes.txt"), b"a person's")?;
        assert_eq!(store.latest_generation("local")?.map(|g| g.number), Some(1));
        assert_eq!(store.add_generation(generation("local"))?.number, 3);
        let notes = store.take_notes().join("\n");
        assert!(notes.contains("generation 2 of local cannot be read"), "{notes}");
        assert!(notes.contains("notes.txt is not a generation"), "{notes}");
        Ok(())
    }
}
