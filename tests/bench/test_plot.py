"""Axes, and charts as SVG."""

from __future__ import annotations

from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from pfsb.bench.plot import HEIGHT, WIDTH, Axis, Chart, Series, svg

NAME = "{http://www.w3.org/2000/svg}"


class AxisTests(SynchronousTestCase):
    def test_logarithmic_axis_has_whole_powers_of_ten(self) -> None:
        """A logarithmic axis has whole powers of ten, at equal distances."""
        axis = Axis.around([3.0, 450.0], 0, 300, log=True)
        self.assertEqual(axis.ticks(), [1.0, 10.0, 100.0, 1000.0])
        self.assertEqual([round(axis.at(value)) for value in axis.ticks()], [0, 100, 200, 300])

    def test_linear_axis_begins_at_zero_and_has_round_ticks(self) -> None:
        """A linear axis begins at 0, so that heights are proportional to values, and has round ticks."""
        axis = Axis.around([700.0, 1_900.0], 0, 200, log=False)
        self.assertEqual(axis.ticks(), [0.0, 500.0, 1000.0, 1500.0, 2000.0])
        self.assertEqual(axis.at(950.0), 95.0)

    def test_axis_of_no_values_or_of_one_value_can_be_drawn(self) -> None:
        """A run that measured nothing gives an empty chart, not a division by zero."""
        for values in ([], [0.0], [10.0]):
            for log in (True, False):
                axis = Axis.around(values, 0, 100, log)
                self.assertTrue(0 <= axis.at(axis.high) <= 100)


class DrawTests(SynchronousTestCase):
    def test_zero_is_left_out_of_a_logarithmic_axis(self) -> None:
        """A rate of 0 must not be drawn at the lower end of the axis, which stands for a positive rate."""
        for log, count in ((True, 1), (False, 2)):
            chart = Chart("One", "x", "y", [Series("", [(1, 0.0), (4, 90)])], log_y=log)
            self.assertEqual(len(ElementTree.fromstring(svg([chart])).findall(f".//{NAME}circle")), count)

    def test_points_are_inside_the_chart_and_names_are_escaped(self) -> None:
        """Points lie inside the chart, and names with < and & leave the document well-formed."""
        series = [Series("a<b & c", [(1, 10), (4, 90)]), Series("paper", [(2, 50)], dashed=True)]
        document = ElementTree.fromstring(svg([Chart("One", "x", "y", series), Chart("Two", "x", "y", log_y=True)]))
        circles = document.findall(f".//{NAME}circle")
        self.assertEqual(len(circles), 3)
        for circle in circles:
            self.assertTrue(0 < float(circle.attrib["cx"]) < WIDTH and 0 < float(circle.attrib["cy"]) < HEIGHT)
        self.assertIn("a<b & c", [text.text for text in document.findall(f".//{NAME}text")])
        self.assertEqual(document.attrib["width"], str(2 * WIDTH))
