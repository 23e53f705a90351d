/*
 * Installs a bundle as an app does, and says what is there before and after.
 *
 * Takes the folder of a bundle, the folder of a store, a format and the milliseconds that each block of the source takes, so that
 * there is time to end the program in the middle. Prints the bundle's id and the artifact's bytes, or why not.
 */
package io.pocketbert.core

import java.io.File
import java.io.FilterInputStream
import java.io.InputStream

private class Slow(stream: InputStream, private val pause: Long) : FilterInputStream(stream) {
    override fun read(block: ByteArray, start: Int, count: Int): Int {
        Thread.sleep(pause)
        return super.read(block, start, count)
    }
}

private fun show(moment: String, store: BundleStore, format: String) {
    val there = store.installed(format)?.run { bundle.verify(artifact); "${bundle.id} ${file.length()}" }
    println("$moment: ${there ?: "nothing"}")
}

fun main(arguments: Array<String>) {
    val (bundle, folder, format, pause) = arguments
    val store = BundleStore(File(folder))
    show("before", store, format)
    try {
        store.install({ path ->
            println("copying $path")
            Slow(File(bundle, path).inputStream(), pause.toLong())
        }, format)
    } catch (problem: BundleException) {
        println("refused: ${problem.message}")
    }
    show("after", store, format)
}
