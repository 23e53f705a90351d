/* The stand-ins offer nothing that the Android libraries have not: what is compiled against them runs on a phone. */
package io.pocketbert.host

import org.junit.Test
import kotlin.test.assertEquals
import kotlin.test.assertTrue

class StandInTest {
    private val api = javaClass.getResource("/android-api.txt")!!.readText().lines().toSet()

    @Test
    fun everyPublicMemberIsOneOfTheLibrarys() {
        val members = CLASSES.flatMap(::members)
        assertTrue(members.size > CLASSES.size)
        assertEquals(emptyList(), members.filterNot { it in api })
    }
}
