"""The command line: reads the settings, joins the parts and shows what they say."""
