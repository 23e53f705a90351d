/* Classifies texts with LiteRT, as io.pocketbert.host.answer describes: the folder of a bundle, a scratch folder. */
package io.pocketbert.litert

import io.pocketbert.host.answer
import java.io.File

fun main(arguments: Array<String>) {
    val (bundle, scratch) = arguments.map(::File)
    answer(LiteRtEngine.kind(2, File(scratch, "cache")), bundle, scratch)
}
