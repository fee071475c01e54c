//! [`Known::values`]: the values of a stack's parameters, as far as they are known.

use std::collections::BTreeMap;

use fleet_derivation::{Derivation, Input};
use fleet_model::Kind;
use fleet_objects::{StackParameter, StackSpec};

use crate::shared::{SHARED, logical_id};

/// What parameters get their values from.
#[derive(Clone, Debug, Default)]
pub struct Known<'a> {
    /// Outputs of deployed stacks, by the stack's name in addresses.
    pub outputs: BTreeMap<&'a str, &'a BTreeMap<String, String>>,
    /// The machine image: the one that is deployed, else the one that a new machine would get.
    pub machine_image: Option<&'a str>,
}

impl Known<'_> {
    /// Every parameter's value; `None` where it is known only once an image was pushed or another stack was made.
    #[must_use]
    pub fn values(&self, spec: &StackSpec, derivation: &Derivation) -> BTreeMap<String, Option<String>> {
        let value = |(id, parameter): (&String, &StackParameter)| {
            let value = match parameter {
                StackParameter::Image { image } => self.image(image, derivation),
                StackParameter::Output { stack, output } => self.output(stack, output),
                StackParameter::MachineImage => self.machine_image.map(str::to_owned),
            };
            (id.clone(), value)
        };
        spec.parameters.iter().map(value).collect()
    }

    fn output(&self, stack: &str, output: &str) -> Option<String> {
        self.outputs.get(stack)?.get(output).cloned()
    }

    /// `<repository>@<digest>`: the repository by the output of the stack that has it, the digest by the derivation.
    fn image(&self, image: &str, derivation: &Derivation) -> Option<String> {
        let digest = derivation.inputs.values().find_map(|input| match input {
            Input::Derivation { address, output: Some(digest), .. }
                if address.kind == Kind::Image && address.name == image =>
            {
                Some(digest)
            }
            _ => None,
        })?;
        let repository = self.output(SHARED, &repository_output(image))?;
        Some(format!("{repository}@{digest}"))
    }
}

/// The output of the `shared` stack that names an image's repository.
#[must_use]
pub fn repository_output(image: &str) -> String {
    format!("Uri{}", logical_id(image))
}

#[cfg(test)]
mod tests {
    use fleet_derivation::Hash;
    use fleet_model::Address;

    use super::*;

    #[test]
    fn a_parameter_is_known_once_what_it_comes_from_is() {
        let parameters = BTreeMap::from([
            ("Web".to_owned(), StackParameter::Image { image: "my-web".to_owned() }),
            ("Files".to_owned(), StackParameter::Output { stack: "dev-data".to_owned(), output: "Id".to_owned() }),
            ("Machine".to_owned(), StackParameter::MachineImage),
        ]);
        let spec = StackSpec { template: String::new(), parameters, tags: BTreeMap::new(), keys: BTreeMap::new() };
        let mut derivation = Derivation::new(Address::new(Kind::Stack, "dev"));
        let image = |output: Option<&str>| Input::Derivation {
            address: Address::new(Kind::Image, "my-web"),
            hash: Hash::of(b"web"),
            output: output.map(str::to_owned),
        };
        derivation.input("parameter.Web", image(None), None);
        let nothing = Known::default().values(&spec, &derivation);
        assert!(nothing.values().all(Option::is_none), "{nothing:?}");

        derivation.input("parameter.Web", image(Some("sha256:aa")), None);
        let shared = BTreeMap::from([("UriMyWeb".to_owned(), "registry/fleet/my-web".to_owned())]);
        let data = BTreeMap::from([("Id".to_owned(), "fs-1".to_owned())]);
        let known = Known { outputs: [("shared", &shared), ("dev-data", &data)].into(), machine_image: Some("ami-1") };
        let values: Vec<_> = known.values(&spec, &derivation).into_values().flatten().collect();
        assert_eq!(values, ["fs-1", "ami-1", "registry/fleet/my-web@sha256:aa"]);
    }
}
