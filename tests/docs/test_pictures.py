"""docs/pictures shows the graphs that the library builds."""

import pictures


def test_pictures_are_true(environment):
    tfinfer = f"{environment['PATH'].split(':')[0]}/tfinfer"
    found = pictures.sources(tfinfer)
    assert sorted(path.stem for path in pictures.FOLDER.glob("*.svg")) == sorted(found)
    for name, text in found.items():
        nodes, edges = pictures.of_source(text)
        assert len(nodes) > 8 and edges, text
        assert pictures.of_picture(pictures.FOLDER / f"{name}.svg") == (nodes, edges), f"tests/docs/pictures.py {tfinfer} draws {name} anew"
