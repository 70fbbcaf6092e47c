import pytest

from tilewhisper.engine.errors import PolicyError
from tilewhisper.engine.routing import policy
from tilewhisper.engine.routing.sites import encoder_sites, stem_sites

TINY = stem_sites(80, 384) + encoder_sites(layers=4, d_model=384, heads=6, ffn=1536)
LARGE = stem_sites(128, 1280) + encoder_sites(layers=32, d_model=1280, heads=20, ffn=5120)


def routed(text: str, sites=TINY, overrides=()) -> dict[str, str]:
    routes = policy.parse_policy(text, "test").with_overrides(overrides).resolve(sites)
    return {route.site.name: route.backend for route in routes}


def test_every_site_takes_the_default_where_no_rule_matches():
    table = routed('default = "torch"')
    assert len(table) == 2 + 4 * 8
    assert set(table.values()) == {"torch"}


def test_the_first_matching_rule_decides():
    wide = '[[rule]]\nsites = "layers.*"\nbackend = "bf16"\n'
    narrow = '[[rule]]\nsites = "layers.1.fc1"\nbackend = "reference"\n'
    assert routed('default = "torch"\n' + narrow + wide)["layers.1.fc1"] == "reference"
    assert routed('default = "torch"\n' + wide + narrow)["layers.1.fc1"] == "bf16"


def test_an_override_wins_over_every_rule_and_the_last_override_over_the_first():
    text = 'default = "torch"\n[[rule]]\nsites = "layers.*"\nbackend = "bf16"\n'
    table = routed(text, overrides=["layers.2.*=torch", "layers.2.fc1=reference"])
    assert table["layers.1.fc1"] == "bf16"
    assert table["layers.2.fc2"] == "torch"
    assert table["layers.2.fc1"] == "reference"


def test_a_glob_must_match_the_whole_name():
    table = routed('default = "torch"', LARGE, overrides=["layers.1.fc1=bf16"])
    assert [name for name, backend in table.items() if backend == "bf16"] == ["layers.1.fc1"]
    table = routed('default = "torch"', LARGE, overrides=["layers.1.*=bf16"])
    assert table["layers.10.fc1"] == "torch"


@pytest.mark.parametrize(
    ("condition", "taken"),
    [
        ("M*N > 576000", {"fc1", "qk"}),  # 1500 x 384 = 576,000 is not above itself
        ("M*N >= 576000", {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2", "qk"}),
        ("K == 64", {"qk"}),
        ("batch > 1", {"qk", "av"}),
        ("M * K * N < 576000", set()),
    ],
)
def test_a_condition_selects_by_the_size_of_the_product(condition, taken):
    text = f'default = "torch"\n[[rule]]\nsites = "layers.0.*"\nwhen = "{condition}"\nbackend = "bf16"\n'
    table = routed(text)
    assert {name.rpartition(".")[2] for name, backend in table.items() if backend == "bf16"} == taken


def test_the_route_says_which_rule_decided_and_what_may_take_over():
    text = 'default = "torch"\n[[rule]]\nsites = "layers.0.fc1"\nbackend = "bf16"\nfallback = "torch"\n'
    first = {route.site.name: route for route in policy.parse_policy(text, "test").resolve(TINY)}
    assert (first["layers.0.fc1"].rule, first["layers.0.fc1"].fallback) == ("layers.0.fc1 = bf16", "torch")
    assert (first["layers.0.fc2"].rule, first["layers.0.fc2"].fallback) == ("default", None)


def test_a_rule_that_matches_nothing_is_an_error_with_near_names():
    complaint = r"'layers\.3\.self_attn\.qproj' matches no site.*layers\.3\.self_attn\.q_proj"
    with pytest.raises(PolicyError, match=complaint):
        routed('default = "torch"', overrides=["layers.3.self_attn.qproj=bf16"])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("default = ", "not valid TOML"),
        ('defualt = "torch"', "unknown key 'defualt'.*'default'"),
        ('description = "x"', "'default' is missing"),
        ("default = 3", "default must be a string"),
        ('default = "torch"\n[[rule]]\nsites = "layers.*"', "rule 1: 'backend' is missing"),
        ('default = "torch"\n[[rule]]\nsites = "layers.*"\nbackend = "bf16"\nwhen = "M+N > 3"', r"rule 1.*'M\+N > 3'"),
        ('default = "torch"\n[[rule]]\nsite = "layers.*"\nbackend = "bf16"', "rule 1: unknown key 'site'.*'sites'"),
        ('default = "torch"\nrule = [3]', "rule 1: expected"),
    ],
)
def test_a_broken_policy_says_what_is_wrong_and_where(text, complaint):
    with pytest.raises(PolicyError, match=complaint):
        policy.parse_policy(text, "test")


@pytest.mark.parametrize("text", ["layers.0.fc1", "=bf16", "layers.0.fc1="])
def test_an_override_of_another_form_is_refused(text):
    with pytest.raises(PolicyError, match="expected SITES=BACKEND"):
        routed('default = "torch"', overrides=[text])


def test_every_preset_resolves_for_the_smallest_and_the_largest_model():
    for preset in policy.presets().values():
        assert preset.description
        assert len(preset.resolve(TINY)) == 34
        assert len(preset.resolve(LARGE)) == 258


def test_the_hybrid_preset_leaves_the_attention_products_where_they_are():
    table = {route.site.name: route.backend for route in policy.load_policy("hybrid-bf16").resolve(TINY)}
    assert {name for name, backend in table.items() if backend == "torch"} == {"conv1", "conv2"} | {
        f"layers.{i}.self_attn.{product}" for i in range(4) for product in ("qk", "av")
    }


def test_a_policy_is_found_by_name_or_by_path(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('default = "bf16"')
    assert policy.load_policy("torch").default == "torch"
    assert policy.load_policy(file).default == "bf16"


def test_a_policy_that_is_nowhere_names_the_presets(tmp_path):
    with pytest.raises(PolicyError, match=r"no policy 'torhc' \(did you mean 'torch'\?\)"):
        policy.load_policy("torhc")
    with pytest.raises(PolicyError, match="is a directory"):
        policy.load_policy(tmp_path)
