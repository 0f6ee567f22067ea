//! Selectors of devices: expressions over one `device` (KEP-4381).

use std::sync::LazyLock;

use corten_api::field::{Faults, Path};
use corten_cel::{Environment, Type};

static DEVICE: LazyLock<Environment> = LazyLock::new(|| {
    let by_domain = |kind| Type::map(Type::String, Type::map(Type::String, kind));
    Environment::base()
        .message(
            "kubernetes.DRADevice",
            [
                ("driver", Type::String),
                ("attributes", by_domain(Type::Any)),
                ("capacity", by_domain(Type::structure("kubernetes.Quantity"))),
                ("allowMultipleAllocations", Type::Bool),
            ],
        )
        .variable("device", Type::structure("kubernetes.DRADevice"))
        .bind()
});

/// Reports what is wrong with the expression `text`.
pub(super) fn compile(faults: &mut Faults, path: &Path<'_>, text: &str) {
    match DEVICE.compile(text) {
        Err(issues) => faults.invalid_str(path, text, &format!("compilation failed: {issues}")),
        // An attribute may be a boolean; which ones are is known when there is a device.
        Ok(checked) => match checked.output() {
            Type::Bool | Type::Any => {}
            kind => faults.invalid_str(path, text, &format!("must evaluate to bool or the unknown type, not {kind}")),
        },
    }
}

#[test]
fn selectors_see_a_device() {
    check("device.driver == 'a.example.com' && device.attributes['a.example.com'].model == 'x'", "");
    check("device.attributes['a.example.com'].shared", "");
    check("cel.bind(a, device.attributes['a.example.com'], a.x > 1 || a.y)", "");
    check("device.capacity['a.example.com'].memory.isGreaterThan(quantity('1Gi'))", "");
    check("device.attributes['a'].version.isLessThan(semver('1.0.0'))", "");
    check("1 + 1", "Invalid value: \"1 + 1\": must evaluate to bool or the unknown type, not int");
    check(
        "device.nope == 1",
        "Invalid value: \"device.nope == 1\": compilation failed: ERROR: <input>:1:7: undefined field 'nope'\n | device.nope == 1\n \
         | ......^",
    );

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let mut faults = Faults::default();
        compile(&mut faults, &Path::new("e"), text);
        assert_eq!(faults.0.first().map_or("", |fault| &fault.message), expected, "{text}");
    }
}
