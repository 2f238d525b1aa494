"""The limit on open files."""

from __future__ import annotations

import resource
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

_BEGIN_WITH_FEW = """
import resource
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
from pfsb.support.open_files import allow_many_files
print(allow_many_files(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


class OpenFilesTests(SynchronousTestCase):
    def test_process_that_begins_with_few_may_have_as_many_as_the_system_allows(self) -> None:
        """A process that begins with a low limit on open files may raise it to what the system allows; it is a process
        of its own, so that the limit of this one stays."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        said = subprocess.run([sys.executable, "-c", _BEGIN_WITH_FEW], capture_output=True, text=True, check=True)
        self.assertEqual(said.stdout.split(), [str(hard)] * 3)
