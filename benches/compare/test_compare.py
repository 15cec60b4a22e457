"""What of the comparison needs no server: reading the tools' output, and the table. Run by `python3 -m unittest` in this directory."""
import unittest

import install
import load
import report

WRK = """\
Running 60m test @ http://127.0.0.1:18099/
  1 threads and 64 connections
  30201 requests in 703.77ms, 4.38MB read
Requests/sec:  42913.47
{"seconds": 0.703765, "requests": 30201, "errors": 3, "p50_us": 1129, "p99_us": 4057}
"""
H2LOAD = """\
finished in 505.56ms, 36042.00 req/s, 5.22MB/s
requests: 18021 total, 18085 started, 18021 done, 18019 succeeded, 2 failed, 0 errored, 0 timeout
status codes: 18019 2xx, 0 3xx, 0 4xx, 2 5xx
"""
OHA = """{
  "summary": {"successRate": 1.0, "total": 0.517686884, "slowest": 0.099671048, "requestsPerSec": 6459.503038133762},
  "latencyPercentiles": {"p10": 0.000337028, "p50": 0.023825904, "p99": 0.096415618, "p99.9": 0.099642024},
  "statusCodeDistribution": {"200": 3340, "502": 3},
  "errorDistribution": {"Connection refused (os error 111)": 2, "aborted due to deadline": 1}
}"""
OHA_IN_VAIN = """{
  "summary": {"successRate": 0.0, "total": 0.5}, "latencyPercentiles": {"p50": null, "p99": null},
  "statusCodeDistribution": {}, "errorDistribution": {"Connection refused (os error 111)": 3830, "aborted due to deadline": 4}
}"""


def cell(*cpu: float, errors: int = 0) -> list[load.Figures]:
    """Rounds of one peer."""
    return [{"cpu_us": value, "requests": 1000, "errors": errors, "p99_ms": 1.0} for value in cpu]


class Output(unittest.TestCase):
    def test_wrk(self) -> None:
        got = load.parse_wrk(WRK)
        self.assertEqual((got["requests"], got["errors"], got["p50_ms"], got["p99_ms"]), (30201, 3, 1.129, 4.057))
        self.assertAlmostEqual(got["rate"], 42913, delta=1)

    def test_wrk_without_figures(self) -> None:
        with self.assertRaises(StopIteration):
            load.parse_wrk("unable to connect to 127.0.0.1:1 Connection refused\n")

    def test_h2load(self) -> None:
        self.assertEqual(load.parse_h2load(H2LOAD), {"requests": 18021, "rate": 36042.0, "errors": 2})
        with self.assertRaises(load.Fails):
            load.parse_h2load("starting benchmark...\n")

    def test_oha(self) -> None:
        got = load.parse_oha(OHA)
        self.assertEqual((got["requests"], got["errors"]), (3343, 5))
        self.assertAlmostEqual(got["rate"], 6457.6, delta=0.1)
        self.assertAlmostEqual(got["p50_ms"], 23.826, delta=0.001)
        self.assertAlmostEqual(got["p99_ms"], 96.416, delta=0.001)
        self.assertEqual(load.parse_oha(OHA_IN_VAIN), {"requests": 0, "rate": 0, "errors": 3830})

    def test_versions(self) -> None:
        self.assertEqual(install.version_in("nginx version: nginx/1.22.1"), "1.22.1")
        self.assertEqual(install.version_in("envoy  version: 9e5580933739775e8/1.40.0/Clean/RELEASE/BoringSSL"), "1.40.0")
        self.assertEqual(install.version_in("what?"), "unknown")


class Table(unittest.TestCase):
    def setUp(self) -> None:
        self.results = report.Results(["ringway", "nginx", "haproxy", "envoy"], ["small"])
        cells = {"ringway": cell(14, 16, 15), "nginx": cell(12, 10, 11), "haproxy": cell(1, errors=500)}
        self.results.samples = {("small", peer): samples for peer, samples in cells.items()}
        self.results.faults = {("small", "envoy"): "not installed: no pip"}

    def test_a_loss_is_shown_and_who_errs_does_not_win(self) -> None:
        row = report.row(self.results, "small", "cpu_us", "CPU", spread=True)
        self.assertEqual(row, "| CPU | 15.0 (14.0 – 16.0) | **11.0** (10.0 – 12.0) | 1.00 † | not installed | 1.36 |")

    def test_errors_are_added_up(self) -> None:
        self.results.samples["small", "nginx"][1]["errors"] = 2
        self.assertEqual(report.row(self.results, "small", "errors", "errors", spread=True), "| errors | 0 | 2 | 500 † | not installed |  |")

    def test_reasons_stand_below_the_table(self) -> None:
        names = {peer: peer for peer in self.results.peers}
        self.assertIn("* envoy not installed: no pip", report.markdown(self.results, names, ["* Date: today"]))

    def test_charts(self) -> None:
        bars = report.charts(self.results)[0]["bars"]
        self.assertEqual(bars[0], {"peer": "ringway", "median": 15, "least": 14, "most": 16})
        self.assertEqual(bars[3], {"peer": "envoy", "why": "not installed"})

    def test_numbers(self) -> None:
        self.assertEqual([report.number(value) for value in (0.283, 9.999, 15.04, 99.97, 43210.4)], ["0.28", "10.0", "15.0", "100", "43,210"])


if __name__ == "__main__":
    unittest.main()
