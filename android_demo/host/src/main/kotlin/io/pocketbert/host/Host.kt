/* Where tests find bundles and native libraries, and why they cannot run where there are none. */
package io.pocketbert.host

import java.io.File

object Host {
    /** The names of the demo bundles. */
    val BUNDLES = listOf("distilbert", "albert")

    /** The folder of a demo bundle. */
    fun bundle(name: String) = File(System.getProperty("pocketbert.bundles"), name)

    /** What is missing here to run an engine; null if nothing. */
    fun missing(library: String): String? = when {
        !File(System.getProperty("pocketbert.natives"), library).exists() -> "no $library: run tests/android_natives.py"
        !BUNDLES.all { bundle(it).isDirectory } -> "no bundles in ${System.getProperty("pocketbert.bundles")}: run make demo"
        else -> null
    }
}
