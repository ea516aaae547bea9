"""What is particular to each of the simulator's studies: doses, faults, slices, movement, stains, proteins."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from chammi75.mini.colony import LOCALISATIONS
from chammi75.mini.culture import Phenotype
from chammi75.mini.optics import Objective, PhaseRing, phase_contrast
from chammi75.mini.studies import histology, migration, organelles, screen, yeast


def site(well: str, fov: int = 1, plate: str = "MCF7-7501") -> screen.Site:
    return next(s for s in screen.plan(1.0) if (s.plate, s.well, s.fov) == (plate, well, fov))


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one.ravel().astype(float), other.ravel().astype(float))[0, 1])


def test_two_plates_repeat_six_compounds_in_three_doses_with_six_controls_each() -> None:
    sites = [s for s in screen.plan(1.0) if s.fov == 1]
    by_plate = {plate: [s for s in sites if s.plate == plate] for plate in ("MCF7-7501", "MCF7-7502")}
    for members in by_plate.values():
        assert len(members) == 24
        assert sum(s.dose is None for s in members) == 6
        treated = {(s.compound[0], s.compound[1]) for s in members if s.dose is not None}
        assert len(treated) == 18
        assert len({name for name, _ in treated}) == 6
    assert [s.compound for s in by_plate["MCF7-7501"]] == [s.compound for s in by_plate["MCF7-7502"]]


def test_a_higher_dose_has_more_effect_on_the_numbers_and_on_the_picture() -> None:
    effects = [site(f"C{column}").effect for column in ("03", "04", "05")]
    assert effects == sorted(effects)
    assert effects[0] < 0.2
    assert effects[-1] > 0.9

    def nucleus_px(well: str) -> float:
        planes, cells = screen.simulate(site(well), 75)
        light = planes[0].astype(float) - np.percentile(planes[0], 20)
        return float((light > 0.25 * np.percentile(light, 98)).sum() / len(cells))

    sizes = [nucleus_px(well) for well in ("B02", "B03", "B04", "B05")]
    assert sizes[3] > 1.3 * sizes[0]
    assert sizes[3] > sizes[2] > 0.95 * sizes[0]


def test_phenotypes_of_the_screen_are_visible_in_the_channel_that_they_concern() -> None:
    control, cells = screen.simulate(site("B02"), 75)
    detail = {well: fine_share(screen.simulate(site(well), 75)[0]) for well in ("C05", "E05")}
    sound = fine_share(control)
    assert detail["C05"][2] < 0.6 * sound[2]  # nocodazole dissolves microtubules
    lost_actin, _ = screen.simulate(site("E05"), 75)
    assert lost_actin[1].mean() - 8 < 0.8 * (control[1].mean() - 8)
    arrested = screen.simulate(site("F05"), 75)[1]
    assert sum(cell.phase != "interphase" for cell in arrested) > 0.5 * len(arrested)
    assert len(screen.simulate(site("G05"), 75)[1]) < 0.6 * len(cells)


def fine_share(planes: np.ndarray) -> list[float]:
    """Of each plane, the share of variance at periods of 3 to 8 pixels."""
    frequency = np.hypot(np.fft.fftfreq(planes.shape[1])[:, None], np.fft.rfftfreq(planes.shape[2])[None, :])
    shares = []
    for plane in planes:
        power = np.abs(np.fft.rfft2(plane - plane.mean())) ** 2
        shares.append(float(power[(frequency > 1 / 8) & (frequency < 1 / 3)].sum() / power.sum()))
    return shares


def test_the_field_with_swapped_channels_holds_the_same_planes_in_another_order() -> None:
    swapped = site("E02", 2)
    assert swapped.defect == "swapped channels"
    planes, _ = screen.simulate(swapped, 75)
    right, _ = screen.simulate(replace(swapped, defect=None), 75)
    np.testing.assert_array_equal(planes, right[[0, 2, 1]])


def test_defects_of_the_screen_are_visible() -> None:
    sound, _ = screen.simulate(site("C02"), 75)
    blurred, _ = screen.simulate(site("C02", 2), 75)
    assert max(np.divide(fine_share(blurred), fine_share(sound))) < 0.3
    saturated, _ = screen.simulate(site("C02", 2, "MCF7-7502"), 75)
    assert (saturated == 255).mean() > 0.1
    empty, cells = screen.simulate(site("D02", 2), 75)
    assert cells == ()
    assert empty.std() < 0.1 * sound.std()
    debris, _ = screen.simulate(site("D02", 2, "MCF7-7502"), 75)
    # what is no stain shines in all channels
    common = debris.min(axis=0)
    assert np.percentile(common, 99.9) > np.percentile(sound.min(axis=0), 99.9) + 20


def test_a_field_imaged_once_more_is_dimmer_and_shows_the_same_cells() -> None:
    first, cells = screen.simulate(site("B02", plate="MCF7-7502"), 75)
    second, again = screen.simulate(site("B02", 2, "MCF7-7502"), 75)
    assert cells == again
    assert correlation(first[1], second[1]) > 0.95
    assert second.mean() < 0.85 * first.mean()


def test_slices_of_a_stack_resemble_their_neighbours_and_show_each_organelle_at_its_height() -> None:
    stack, cells = organelles.simulate(organelles.plan(1.0)[0], 75)
    assert stack.shape == (7, 3, 256, 256)
    assert stack.dtype == np.uint16
    assert cells
    for channel, planes in zip(organelles.CHANNELS, stack, strict=True):
        assert correlation(planes[0], planes[1]) > correlation(planes[0], planes[2]), channel.label
        assert np.percentile(planes, 99.9) > 1000, channel.label
        assert (planes == 65535).mean() == 0.0
    light = stack.astype(float).mean(axis=(2, 3)) - organelles.CAMERA.offset
    names = [channel.channel_type for channel in organelles.CHANNELS]
    assert light[names.index("cytoskeleton")].argmax() == 0
    assert light[names.index("membrane")].argmax() > 0


def test_a_stack_taken_again_is_bleached_and_one_out_of_focus_is_blurred() -> None:
    positions = organelles.plan(1.0)
    again = next(p for p in positions if p.duplicate == "near")
    first, _ = organelles.simulate(positions[again.cells_of - 1], 75)
    second, _ = organelles.simulate(again, 75)
    assert correlation(first[1, 1], second[1, 1]) > 0.9
    assert second.mean() < 0.9 * first.mean()
    blurred = next(p for p in positions if p.defect == "blurred")
    off, _ = organelles.simulate(blurred, 75)
    sharp, _ = organelles.simulate(replace(blurred, defect=None), 75)
    assert off[0, 0].std() < 0.5 * sharp[0, 0].std()


def test_crawling_cells_keep_their_track_and_move_a_little_from_frame_to_frame() -> None:
    frames = list(migration.simulate(migration.plan(1.0)[0], 75))
    tracks = [{cell.track: cell for cell in cells} for _, cells in frames]
    shared = set(tracks[0]) & set(tracks[-1])
    assert len(shared) > 0.6 * len(tracks[0])
    steps = [
        np.hypot(late[t].x - early[t].x, late[t].y - early[t].y)
        for early, late in pairwise(tracks)
        for t in set(early) & set(late)
    ]
    assert 1.0 < np.median(steps) < 10.0
    assert correlation(frames[0][0], frames[1][0]) > correlation(frames[0][0], frames[5][0])


def test_cells_in_phase_contrast_are_dark_on_grey_ground_with_bright_halos() -> None:
    image, cells = next(iter(migration.simulate(migration.plan(1.0)[2], 75)))
    ground = np.median(image)
    at_nuclei = np.mean([image[int(cell.y), int(cell.x)] for cell in cells])
    assert 90 < ground < 150
    assert at_nuclei < ground - 25
    assert np.percentile(image, 98) > ground + 50


def test_a_phase_ring_makes_delay_dark_and_surrounds_it_with_a_halo() -> None:
    objective = Objective(magnification=10.0, numerical_aperture=0.3, refractive_index=1.0, pixel_size_um=0.65)
    y, x = np.mgrid[-64:64, -64:64]
    wave = np.exp(0.4j * (np.hypot(y, x) < 12))
    image = phase_contrast(
        wave,
        objective=objective,
        wavelength_um=0.55,
        defocus_um=0.0,
        ring=PhaseRing(inner=0.085, outer=0.115, transmission=0.5),
    )
    assert image[64, 64] < 0.8
    assert image[64, 64 + 15] > 1.05
    assert image[0, 0] == pytest.approx(1.0, abs=0.1)


def test_tiles_of_a_slide_overlap_in_the_same_tissue() -> None:
    tiles = histology.plan(1.0)[0]
    pictures = histology.simulate(tiles, 75)
    left, right = pictures[0][0], pictures[1][0]
    assert (tiles[0].x, tiles[1].x) == (0, 192)
    assert correlation(left[:, 192:], right[:, :64]) > 0.97


def test_haematoxylin_is_blue_eosin_is_pink_and_glass_is_white() -> None:
    picture, cells = histology.simulate(histology.plan(1.0)[0], 75)[0]
    assert picture.dtype == np.uint8
    nuclei = np.mean([picture[int(cell.y), int(cell.x)] for cell in cells], axis=0)
    assert nuclei[2] > nuclei[0] + 10
    assert nuclei.mean() < 140
    pink = np.median(picture.reshape(-1, 3), axis=0)
    assert pink[1] < pink[2] - 15
    assert pink[1] < pink[0] - 15
    tiles = histology.plan(1.0)[4]
    glass, none = histology.simulate(tiles, 75)[-1]
    assert tiles[-1].defect == "empty"
    assert none == ()
    assert glass.min() > 225


def test_a_tumour_has_larger_nuclei() -> None:
    normal, tumour = (histology.simulate(tiles, 75)[0][1] for tiles in histology.plan(0.4))
    assert np.percentile([c.area_px for c in tumour], 90) > 1.3 * np.percentile([c.area_px for c in normal], 90)


@pytest.mark.parametrize("strain", range(len(LOCALISATIONS)))
def test_a_tagged_protein_is_in_its_place(strain: int) -> None:
    field = next(f for f in yeast.plan(1.0) if f.strain == strain and f.fov == 1)
    planes, cells = yeast.simulate(field, 75)
    assert planes.dtype == np.uint16
    assert planes.max() <= 2**14 - 1
    light = planes[1].astype(float) - yeast.CAMERA.offset
    inside = np.mean([light[int(c.y), int(c.x)] for c in cells if c.parent is None])
    bright = (light > 0.5 * np.percentile(light, 99.7)).mean()
    where = LOCALISATIONS[strain]
    assert len(cells) > 15
    assert {c.phase for c in cells} == {"mother", "bud"}
    if where == "cytosol":
        assert bright > 0.08
    else:
        assert bright < 0.08
    if where in ("cell periphery", "vacuole membrane", "bud neck"):
        assert inside < 0.5 * np.percentile(light, 99.7)


def test_buds_name_their_mother() -> None:
    _, cells = yeast.simulate(yeast.plan(1.0)[0], 75)
    tracks = {cell.track: cell for cell in cells}
    pairs = [(cell, tracks[cell.parent]) for cell in cells if cell.parent in tracks]
    assert pairs
    assert all(bud.area_px < mother.area_px for bud, mother in pairs if 40 < mother.x < 216 and 40 < mother.y < 216)


def test_a_share_of_a_phenotype_lies_between_none_and_all() -> None:
    strong = Phenotype("lost actin", actin=0.2, mitotic_share=0.02)
    assert strong.at(1.0) == strong
    assert strong.at(0.0) == replace(Phenotype(), name="lost actin")
    assert strong.at(0.25).actin == pytest.approx(0.8)
