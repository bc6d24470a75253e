"""What the machine has. Looks only; plans nothing and changes nothing."""

from octavo.hardware.probe import Cpu, Disk, Hardware, Memory, probe

__all__ = ["Cpu", "Disk", "Hardware", "Memory", "probe"]
